"""The `link:` part of a rig file, and the faults of the link that a workload names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from hwvirt.link.config import Compression, Flow, TlsFiles
from hwvirt.link.faults import ETHERNET_FRAME_BYTES, FAULTS, KERNEL_RUN, PTY_RUN, SEALED, Extent, FaultKind, LinkFault
from hwvirt.rig.file.item import Item
from hwvirt.rig.file.model import DiskSpec, Ethernet, Kernels, LabDisk, LinkSpec, Rig, Serial, TlsSpec
from hwvirt.rig.file.scenario import StrikeLink

__all__ = ["DEFAULT_LINK", "parse_link", "parse_strike"]

_DEFAULT_STALL_S = 30.0
_DEFAULT_BAUD = 115200
_MOST_FRAMES = 1000
_RATE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(bit|kbit|Mbit|Gbit)")
_RATE_UNITS = {"bit": 1.0, "kbit": 1e3, "Mbit": 1e6, "Gbit": 1e9}
_LEAST_RATE = 1000.0
_LEAST_BAUD, _MOST_BAUD = 300, 100_000_000
_MOST_STRUCK_BYTES = 1 << 20

DEFAULT_LINK = Ethernet(_DEFAULT_STALL_S)


def parse_link(item: Item, controllers: Collection[str], disks: Mapping[str, DiskSpec]) -> LinkSpec:
    """The second path between these controllers, with the faults that stand on it all the time."""
    kind, value, _ = item.choice(("ethernet", "serial"))
    if kind == "serial":
        return _serial(value, controllers, disks)
    found = value.fields((), ("stall", "tls", *(kind.value for kind in _STANDING)))
    standing = [LinkFault(kind, _AMOUNTS[kind](found[kind.value])) for kind in _STANDING if kind.value in found]
    tls = _tls(found["tls"], controllers) if "tls" in found else None
    return Ethernet(_stall(found), tuple(standing), tls)


def _serial(item: Item, controllers: Collection[str], disks: Mapping[str, DiskSpec]) -> Serial:
    found = item.fields((), ("baud", "stall", "flow", "compression", "devices"))
    baud = found["baud"].integer(_LEAST_BAUD, _MOST_BAUD) if "baud" in found else _DEFAULT_BAUD
    flow = found["flow"].word(Flow) if "flow" in found else Flow.NONE
    compression = found["compression"].word(Compression) if "compression" in found else Compression.ZSTD
    devices = None
    if "devices" in found:
        for name, disk in disks.items():
            if isinstance(disk, LabDisk):
                raise found["devices"].error(
                    f"disk {name!r} is one of the lab, whose kernels see no device of this machine",
                    "Leave `devices` out: between kernels the run lays the line itself.",
                )
        devices = _devices(found["devices"], controllers)
    return Serial(baud, _stall(found), flow, compression, devices)


def _devices(item: Item, controllers: Collection[str]) -> Mapping[str, str]:
    """Whose end of the line is which device of this machine, or which one that this machine reaches."""
    devices: dict[str, str] = {}
    for name, device in item.fields(controllers).items():
        place = device.text()
        if not place.startswith("/") and "://" not in place:
            raise device.error(f"{place!r} is no device", "Write it like /dev/ttyUSB0 or rfc2217://HOST:PORT.")
        if place in devices.values():
            raise device.error(f"{place!r} is the device of another controller, too", "A line has two ends.")
        devices[name] = place
    return MappingProxyType(devices)


def parse_strike(item: Item, found: dict[str, Item], rig: Rig) -> StrikeLink:
    """The link fault in the keys `link` and `for` of the fault `item`: what goes wrong, for how long, and toward whom."""
    link, lasting = found["link"], found.get("for")
    kind, value, beside = link.choice([kind.value for kind in FaultKind], ("toward",))
    fault = FaultKind(kind)
    if isinstance(rig.link, Ethernet) and rig.link.tls is not None and fault in SEALED:
        raise link.error(f"{kind!r} needs frames that can be read, and TLS hides them", "Use a link without `tls`.")
    if len(rig.controllers) == 1:
        raise link.error("a rig with one controller has no link")
    if isinstance(rig.link, Serial) and rig.link.devices is not None:
        raise link.error(
            f"{kind!r} needs a line that the run lays itself; nobody here can reach the one between two devices",
            "Leave `devices` of the link out, or spoil that line by hand.",
        )
    if fault in SEALED and isinstance(rig.link, Ethernet) and rig.lab.kernels is Kernels.EACH:
        raise link.error(
            f"{kind!r} needs a cable that knows the frames of the link; this one carries Ethernet frames",
            "Have it in a rig whose controllers share a machine.",
        )
    if fault in _WHOM_ELSE and "toward" in beside:
        raise beside["toward"].error(f"a link fault {kind!r} has no such key", _WHOM_ELSE[fault])
    toward = beside["toward"].one_of(rig.controllers, "controller") if "toward" in beside else None
    amount = _AMOUNTS[fault](value) if fault in _AMOUNTS else 0.0
    if fault is FaultKind.TRUNCATE:
        _refuse_byte_beyond_all(value, amount, rig)
    if FAULTS[fault].extent is Extent.COUNT:
        if lasting is not None:
            raise lasting.error(f"{kind!r} has no duration; it ends with its frames")
        count = 1 if fault in _AMOUNTS else value.integer(1, _MOST_FRAMES)
        return StrikeLink(LinkFault(fault, amount, count=count), toward)
    if fault is FaultKind.HALF_OPEN:
        toward = value.one_of(rig.controllers, "controller")
    if fault is FaultKind.CUT:
        value.fields(())
    if lasting is None:
        raise item.error("key 'for' is missing", "Say how long it lasts, like `for: 3s`.")
    return StrikeLink(LinkFault(fault, amount, for_s=lasting.duration()), toward)


def _refuse_byte_beyond_all(item: Item, byte: float, rig: Rig) -> None:
    """A frame that is to end at a byte has to be longer; on some cables none ever is."""
    between_kernels = rig.lab.kernels is Kernels.EACH
    if isinstance(rig.link, Serial):
        what, longest_bytes = "run of bytes on this line", (KERNEL_RUN if between_kernels else PTY_RUN).at(rig.link.baud)
    elif between_kernels:
        what, longest_bytes = "frame on this cable", ETHERNET_FRAME_BYTES
    else:
        return
    if byte >= longest_bytes:
        why = f"no {what} is longer than {longest_bytes} bytes, so none is cut at byte {byte:.0f}"
        raise item.error(why, f"Use a byte below {longest_bytes}.")


def _tls(item: Item, controllers: Collection[str]) -> TlsSpec:
    kind, value, _ = item.choice(("generated", "files"))
    if kind == "generated":
        value.fields(())
        return TlsSpec({})
    return TlsSpec({name: _tls_files(files) for name, files in value.fields(controllers).items()})


def _tls_files(item: Item) -> TlsFiles:
    found = item.fields(("authority", "certificate", "key"))
    folder = Path(item.file).parent
    return TlsFiles(**{key: folder / path.text() for key, path in found.items()})


def _stall(found: dict[str, Item]) -> float:
    return found["stall"].duration() if "stall" in found else _DEFAULT_STALL_S


def _rate(item: Item) -> float:
    return item.parsed(_bits_per_s)


def _bits_per_s(text: str) -> float:
    match = _RATE.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is no rate; write it like 10Mbit, with one of {', '.join(_RATE_UNITS)}")
    rate = float(match[1]) * _RATE_UNITS[match[2]]
    if rate < _LEAST_RATE:
        raise ValueError(f"{text!r} is too slow for anything; the least is 1kbit")
    return rate


def _size(item: Item) -> float:
    return float(item.size(_MOST_STRUCK_BYTES))


_STANDING = (FaultKind.DELAY, FaultKind.JITTER, FaultKind.RATE)
_AMOUNTS: dict[FaultKind, Callable[[Item], float]] = {
    FaultKind.DELAY: Item.duration,
    FaultKind.JITTER: Item.duration,
    FaultKind.TRUNCATE: _size,
    FaultKind.GARBAGE: _size,
    FaultKind.RATE: _rate,
}
_WHOM_ELSE = {
    FaultKind.CUT: "A cut concerns both directions; `{half-open: b}` is silent toward one.",
    FaultKind.HALF_OPEN: "The controller that hears nothing is its value, like `{half-open: b}`.",
}
