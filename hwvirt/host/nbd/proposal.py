"""The client's side of fixed newstyle negotiation, as a pure script. Ref: NetworkBlockDevice/nbd doc/proto.md."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Final

from hwvirt.errors import InfrastructureError
from hwvirt.host.nbd.dialogue import Script, Step
from hwvirt.host.nbd.wire import (
    BLOCK_SIZES,
    CLIENT_FLAGS,
    CONTEXT,
    EXPORT,
    GREETING,
    MAX_TRANSFER_BYTES,
    OPTION,
    OPTION_REPLY,
    U16,
    U32,
    ClientFlag,
    HandshakeFlag,
    Info,
    Magic,
    NbdViolation,
    Option,
    Reply,
    TransmissionFlag,
    is_error,
)

__all__ = ["Offer", "propose"]

_MAX_REPLY_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class Offer:
    """What the server offers: size, flags, request lengths, form of replies, metadata context IDs with their names."""

    size_bytes: int
    flags: TransmissionFlag
    least_bytes: int
    most_bytes: int
    structured: bool
    contexts: dict[int, str]


def propose(export: str, contexts: Sequence[str]) -> Script[Offer]:
    """Asks for an export, and for structured replies only when metadata contexts are wanted: simple ones are shorter.

    Raises InfrastructureError when the server refuses, NbdViolation when it breaks the protocol.
    """
    magic, more_magic, flags = GREETING.unpack((yield Step(b"", GREETING.size)))
    if (magic, more_magic) != (Magic.INIT, Magic.OPTION) or not flags & HandshakeFlag.FIXED_NEWSTYLE:
        raise NbdViolation("the other end is no NBD server of the fixed newstyle")
    hello = CLIENT_FLAGS.pack(ClientFlag.FIXED_NEWSTYLE | (ClientFlag.NO_ZEROES if flags & HandshakeFlag.NO_ZEROES else 0))
    name = U32.pack(len(export.encode())) + export.encode()
    selected: dict[int, str] = {}
    if contexts:
        yield from _ask(hello, Option.STRUCTURED_REPLY, b"")
        hello = b""
        queries = b"".join(U32.pack(len(context.encode())) + context.encode() for context in contexts)
        data = name + U32.pack(len(contexts)) + queries
        for kind, payload in (yield from _ask(b"", Option.SET_META_CONTEXT, data)):
            if kind == Reply.META_CONTEXT:
                (number,) = CONTEXT.unpack_from(payload)
                selected[number] = payload[CONTEXT.size :].decode(errors="replace")
    wanted = U16.pack(1) + U16.pack(Info.BLOCK_SIZE)
    size_bytes, transmission = None, TransmissionFlag(0)
    least_bytes, most_bytes = 1, MAX_TRANSFER_BYTES
    for kind, payload in (yield from _ask(hello, Option.GO, name + wanted)):
        if kind != Reply.INFO:
            continue
        (info,) = U16.unpack_from(payload)
        if info == Info.EXPORT:
            _, size_bytes, transmission = EXPORT.unpack(payload)
        elif info == Info.BLOCK_SIZE:
            _, least_bytes, _, most_bytes = BLOCK_SIZES.unpack(payload)
    if size_bytes is None:
        raise NbdViolation("the server did not tell the size of the export")
    return Offer(size_bytes, TransmissionFlag(transmission), least_bytes, most_bytes, bool(contexts), selected)


def _ask(before: bytes, option: Option, data: bytes) -> Generator[Step, bytes, list[tuple[int, bytes]]]:
    """Sends one option; returns (type, data) of all replies to it."""
    replies: list[tuple[int, bytes]] = []
    outgoing = before + OPTION.pack(Magic.OPTION, option, len(data)) + data
    while True:
        magic, answered, kind, length = OPTION_REPLY.unpack((yield Step(outgoing, OPTION_REPLY.size)))
        outgoing = b""
        if magic != Magic.OPTION_REPLY or answered != option or length > _MAX_REPLY_BYTES:
            raise NbdViolation(f"the server answered option {option.name} with something else")
        payload = yield Step(b"", length)
        if is_error(kind):
            raise InfrastructureError(
                f"the NBD server refused {option.name}: {_name(kind)} {payload.decode(errors='replace')}".rstrip() + ".",
                next_step="List what it offers with nbdinfo --list.",
            )
        replies.append((kind, payload))
        if kind == Reply.ACK:
            return replies


def _name(kind: int) -> str:
    return Reply(kind).name if kind in Reply.__members__.values() else f"error {kind:#x}"
