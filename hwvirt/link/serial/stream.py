"""One session of a line: a stream of bytes each way, cut into segments, packed as well as both ends can."""

from __future__ import annotations

from collections import deque

from hwvirt.buffers import Buffer
from hwvirt.link.serial.frames import PACKET_MOST_BYTES, Hello, HelloFlag, Packet, payload_bytes, write_packet
from hwvirt.link.serial.numbers import wrapped
from hwvirt.link.serial.packing import UNPACKED_MOST_BYTES, Packer, Unpacker
from hwvirt.link.serial.receiver import Receiver
from hwvirt.link.serial.sender import Sender
from hwvirt.link.serial.traits import LineStatistics, LineTraits
from hwvirt.link.serial.zeros import ZeroPacker, ZeroUnpacker

__all__ = ["Stream"]

_CHUNK_BYTES = 16 << 10
_ANSWERS_IN_BUFFER = 4


class Stream:
    """Both directions of a session. `peer`: its hello; `seed`: that of our packets; `ahead_s`: what it may hold back."""

    def __init__(self, traits: LineTraits, peer: Hello, seed: int, ahead_s: float, statistics: LineStatistics) -> None:
        self._traits = traits
        self._seed = seed
        self._frame_bytes = traits.frame_bytes(peer.buffer_bytes)
        self._payload_bytes = payload_bytes(self._frame_bytes)
        self._packer: Packer | ZeroPacker | None = None
        self._unpacker: Unpacker | ZeroUnpacker | None = None
        if traits.packs and HelloFlag.ZSTD in peer.flags:
            self._packer, self._unpacker = Packer(), Unpacker()
        elif HelloFlag.ZEROES in peer.flags:
            self._packer, self._unpacker = ZeroPacker(), ZeroUnpacker()
        thinking_s = traits.thinking_s(self._frame_bytes)
        answered_s = ahead_s + thinking_s + traits.line_s(self._frame_bytes)
        self._sender = Sender(peer.buffer_bytes, answered_s, self._cut, statistics)
        self._receiver = Receiver(traits.buffer_bytes // _ANSWERS_IN_BUFFER, thinking_s, statistics)
        self._raw: deque[Buffer] = deque()
        self._raw_bytes = 0
        self._ready = bytearray()

    @property
    def unsent_bytes(self) -> int:
        """Bytes that were given to `send` and are not in a segment yet."""
        return self._raw_bytes + len(self._ready)

    @property
    def idle(self) -> bool:
        """Whether all that was sent has arrived."""
        return not self.unsent_bytes and self._sender.idle

    def send(self, buffers: list[Buffer]) -> None:
        """Sends all, in order."""
        for buffer in buffers:
            self._raw.append(buffer)
            self._raw_bytes += len(buffer)

    def take(self, packet: Packet, size_bytes: int, now: float) -> list[Buffer]:
        """A packet came, with `size_bytes` on the line: the bytes whose turn it now is. Raises PeerError for nonsense."""
        if not self._sender.answered(packet.heard, packet.missed, now):
            return []
        segments = self._receiver.take(packet, size_bytes, now)
        if self._unpacker is None:
            return segments
        return [piece for data in segments for piece in self._unpacker.unpack(data, self._traits.place)]

    def next_frame(self, now: float, gone_from: float) -> bytes | None:
        """The frame to send now, whose first bit will leave at `gone_from`; None when there is none."""
        sender = self._sender
        if sender.has_room(self._frame_bytes, data=True) and (found := sender.next_segment()) is not None:
            return self._frame(*found, probe=False, gone_from=gone_from)
        if probe := sender.probe_at() <= now:
            sender.probed(now)
        if (probe or self._receiver.answer_at <= now) and sender.has_room(PACKET_MOST_BYTES, data=False):
            return self._frame(None, b"", probe=probe, gone_from=gone_from)
        return None

    def wants_at(self) -> float:
        """When `next_frame` will have one, if nothing comes before."""
        sender = self._sender
        if sender.has_room(self._frame_bytes, data=True) and sender.has_segment(bool(self.unsent_bytes)):
            return float("-inf")
        if sender.has_room(PACKET_MOST_BYTES, data=False):
            return min(sender.probe_at(), self._receiver.answer_at)
        return sender.probe_at()

    def _frame(self, segment: int | None, data: bytes, *, probe: bool, gone_from: float) -> bytes:
        sender, receiver = self._sender, self._receiver
        place = None if segment is None else wrapped(segment)
        packet = Packet(wrapped(sender.number + 1), wrapped(receiver.heard), receiver.missed, place, data, probe)
        frame = write_packet(packet, self._seed)
        size_bytes = len(frame)
        gone_at = gone_from + self._traits.line_s(size_bytes)
        sender.sent(segment, wants_answer=packet.wants_answer, size_bytes=size_bytes, gone_at=gone_at)
        receiver.answered()
        return frame

    def _cut(self) -> bytes:
        """Data for a new segment: a full one, if there is enough and it does not unpack to too much."""
        ready, unpacked_bytes = self._ready, 0
        while len(ready) < self._payload_bytes and self._raw and unpacked_bytes + 2 * _CHUNK_BYTES <= UNPACKED_MOST_BYTES:
            chunk = self._chunk()
            unpacked_bytes += len(chunk)
            ready += self._packer.pack(chunk) if self._packer else chunk
        data = bytes(ready[: self._payload_bytes])
        del ready[: self._payload_bytes]
        return data

    def _chunk(self) -> bytes:
        pieces, size_bytes = [], 0
        while self._raw and size_bytes < _CHUNK_BYTES:
            piece = memoryview(self._raw.popleft())
            room_bytes = _CHUNK_BYTES - size_bytes
            if len(piece) > room_bytes:
                self._raw.appendleft(piece[room_bytes:])
                piece = piece[:room_bytes]
            pieces.append(piece)
            size_bytes += len(piece)
        self._raw_bytes -= size_bytes
        return b"".join(pieces)
