"""A controller's end of the link: its store and units for the peer, the peer's store for its volumes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec

from hwvirt.controller.config import LinkConfig
from hwvirt.controller.link_store import LinkStore
from hwvirt.controller.patience import PatientLink
from hwvirt.controller.recovery import RESTORE_IT, durable_ledger, reconcile, send_again
from hwvirt.controller.redirect import RedirectVolume
from hwvirt.controller.service import Answering, Service
from hwvirt.controller.store import SEND_AGAIN
from hwvirt.errors import LinkError, PeerError, UsageError
from hwvirt.link.config import EthernetLink, Identity, LinkTiming, Role, SerialLink, TlsFiles
from hwvirt.link.endpoint import Endpoint
from hwvirt.link.errors import LinkDown
from hwvirt.link.events import Peer
from hwvirt.link.messages import Attach, Attached, Refused, Reply, Request
from hwvirt.reading import read_file
from hwvirt.scsi.sense import (
    INVALID_FIELD_IN_PARAMETER_LIST,
    LOGICAL_UNIT_NOT_SUPPORTED,
    NOT_READY,
    CheckCondition,
)
from hwvirt.trace import Trace
from hwvirt.units import Deadline

__all__ = ["LinkSide"]

_LEAST_SILENCE_S = 1.0
_SIGNS_IN_SILENCE = 5
_WRITE_IT = "Write the shared secret there."
_ANOTHER_PEER = "Correct `peer` of the link, or the name of the controller."
_NEXT_STEPS = {
    NOT_READY: _ANOTHER_PEER,
    LOGICAL_UNIT_NOT_SUPPORTED: "Give it a `store`.",
    INVALID_FIELD_IN_PARAMETER_LIST: "Give both disks the same block size.",
}


class LinkSide:
    """The endpoint and what hangs on it. `volumes` are those whose new data goes to the peer.

    `endpoint`: takes the place of the one that the configuration describes; for a link without a network.
    """

    def __init__(
        self, name: str, config: LinkConfig, boot_epoch: int, trace: Trace, endpoint: Endpoint | None = None
    ) -> None:
        self._config = config
        self._trace = trace
        self._volumes: Mapping[int, RedirectVolume] = {}
        self._service: Service | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.endpoint = endpoint or Endpoint(Identity(name, boot_epoch), _described(config), trace)
        self.patient = PatientLink(self.endpoint.request, config.stall_s, trace, self.endpoint.renew)

    async def start(self, volumes: Mapping[int, RedirectVolume], service: Service) -> None:
        """Brings the link up. Raises LinkError when the peer is not there within `up_within_s`, or is not the peer."""
        self._volumes = volumes
        self._service = service
        self.endpoint.on_request = service.on_request
        self.endpoint.on_up = self._on_up
        self.endpoint.on_down = self._on_down
        await self.endpoint.start()

    async def wait_up(self) -> None:
        """Returns when requests flow. Raises what stands in the way."""
        deadline = Deadline.after(self._config.up_within_s)
        await self.endpoint.wait_up(deadline)
        await self.patient.wait_ready(deadline)

    async def close(self) -> None:
        """Ends the session; requests that wait fail."""
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.endpoint.close()
        self.patient.close()

    def _on_up(self, peer: Peer) -> None:
        if self._service is not None:
            self._service.session_began(peer.boot_epoch)
            self.endpoint.on_request = self._service.on_request if self._is_ours(peer) else self._refuse
        self._begin(self.patient.came_up(self._mend, peer.boot_epoch))

    def _on_down(self, reason: LinkError) -> None:
        self.patient.went_down(reason.silent_s if isinstance(reason, LinkDown) else 0.0)

    def _is_ours(self, peer: Peer) -> bool:
        return peer.name == self._config.peer

    def _refuse(self, message: Request, answering: Answering) -> None:
        answering.reply(Refused(NOT_READY, reason=f"its peer is {self._config.peer}"))

    def _begin(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _mend(self) -> int:
        """Attaches every volume; sends again what a restart of the store may have lost; decides what is in doubt.

        Returns the store's epoch.
        """
        try:
            return await self._mend_volumes()
        except CheckCondition as error:
            if error.sense != SEND_AGAIN:
                raise
        return await self._mend_volumes()  # with the store's new epoch

    async def _mend_volumes(self) -> int:
        peer = self.endpoint.peer
        if peer is not None and not self._is_ours(peer):
            reason = f"link: {peer.place} is {peer.name}, but the peer of this controller is {self._config.peer}."
            raise PeerError(reason, next_step=_ANOTHER_PEER)
        former, lost = self.patient.store_epoch, self.patient.lost
        epoch = former
        direct = LinkStore(_Direct(self.endpoint.request, self.patient), 0)
        for number, volume in self._volumes.items():
            epoch = await self._attach(number, volume)
            restarted = former not in (0, epoch)
            if not volume.state.uses_map:
                lost.discard(number)
            elif restarted or number in lost:
                direct.block_bytes = volume.block_bytes
                await self._make_one_to_one(volume, direct, send=restarted)
        return epoch

    async def _make_one_to_one(self, volume: RedirectVolume, direct: LinkStore, *, send: bool) -> None:
        self.patient.lost.discard(volume.number)
        try:
            rows = await durable_ledger(volume, direct)
            if send:
                rows = await send_again(volume, direct, rows)
                self._trace.emit("redirect.sent-again", lun=volume.number)
            if volume.state.uses_map:  # it may have been discarded meanwhile
                reconcile(volume, rows)
        except BaseException:
            self.patient.lost.add(volume.number)
            raise

    async def _attach(self, number: int, volume: RedirectVolume) -> int:
        message = Attach(number, volume.blocks, volume.block_bytes, volume.journal.stored_sequence)
        reply = await self.endpoint.request(message)
        if isinstance(reply, Refused):
            raise PeerError(
                f"controller {self._config.peer} refuses volume {number}: {reply.reason}.",
                next_step=_NEXT_STEPS.get(reply.sense, RESTORE_IT),
            )
        if not isinstance(reply, Attached):
            raise PeerError(f"controller {self._config.peer} answered Attach with {type(reply).__name__}.")
        return reply.store_epoch

    def status(self) -> dict[str, Any]:
        """The link's part of the status view."""
        statistics = self.endpoint.statistics
        peer = self.endpoint.peer
        return {
            "state": self.endpoint.state.value,
            "peer": self._config.peer,
            "kind": "serial" if self._config.serial else "ethernet",
            "tls": self._config.tls is not None,
            "epoch": f"{peer.epoch:016x}" if peer else "",
            "rtt_us": statistics.rtt_us,
            "sent_bytes": statistics.sent_bytes,
            "received_bytes": statistics.received_bytes,
            "reconnects": statistics.reconnects,
            "refused": statistics.refused,
            "corrupt": statistics.corrupt,
            "in_flight": statistics.in_flight,
            "line": asdict(line) if (line := self.endpoint.line) else None,
        }


class _Direct:
    """An `Asker` that does not wait for a session: for mending, before anybody else may ask."""

    def __init__(self, request: Callable[[Request], asyncio.Future[Reply]], patient: PatientLink) -> None:
        self._request = request
        self._patient = patient

    @property
    def store_epoch(self) -> int:
        return self._patient.store_epoch

    def settled_sequence(self, volume: int) -> int:
        return self._patient.settled_sequence(volume)

    def ask(self, message: Request) -> Awaitable[Reply]:
        return self._request(message)


def _described(config: LinkConfig) -> EthernetLink | SerialLink:
    role = Role.LISTEN if config.role == "listen" else Role.CONNECT
    secret, timing = _read_secret(Path(config.secret_file)), _timing(config.stall_s)
    if config.serial is None:
        assert config.host is not None
        assert config.port is not None
        tls = TlsFiles(*map(Path, msgspec.structs.astuple(config.tls))) if config.tls else None
        return EthernetLink(role, config.host, config.port, secret, timing=timing, tls=tls)
    line = config.serial
    return SerialLink(
        role, line.device, line.baud, secret, line.flow, line.receive_buffer_bytes, line.compression, timing=timing
    )


def _timing(stall_s: float) -> LinkTiming:
    """Who waits for `stall_s` only is not kept waiting by a silent link, but machines pause: a second is not yet silence."""
    silence_s = min(LinkTiming().silence_s, max(_LEAST_SILENCE_S, stall_s))
    return LinkTiming(ping_s=silence_s / _SIGNS_IN_SILENCE, silence_s=silence_s)


def _read_secret(path: Path) -> bytes:
    secret = read_file(path, "link secret", _WRITE_IT).strip()
    if not secret:
        raise UsageError(f"link secret {path}: the file is empty.", next_step=_WRITE_IT)
    return secret
