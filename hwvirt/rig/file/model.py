"""What a rig file says, as values. The parser builds them; nothing downstream sees a dict or a piece of YAML.

Every name is resolved and checked: a disk, controller or logical unit that a value names exists in its rig.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TypeAlias

from hwvirt.disk.faulty import Rule
from hwvirt.link.config import Compression, Flow, TlsFiles
from hwvirt.link.faults import LinkFault
from hwvirt.rig.file.scenario import Crash, Expectation, Scenario, Workload
from hwvirt.scsi.volume import Extent

__all__ = [
    "Backing",
    "ControllerSpec",
    "DiskSpec",
    "Ethernet",
    "Forward",
    "Frozen",
    "HostPath",
    "HostSpec",
    "Kernels",
    "LabDisk",
    "LabSpec",
    "LinkSpec",
    "LoopNode",
    "LoopSpec",
    "LunSpec",
    "Overcommit",
    "Own",
    "Placement",
    "Redirect",
    "Rig",
    "ScsiDebugSpec",
    "Serial",
    "SgSpec",
    "StoreSpec",
    "TcmLoopSpec",
    "TcmuSpec",
    "TlsSpec",
]


class LoopNode(Enum):
    """What stands between the device server and the bytes of a loop disk."""

    FILE = "file"  # a plain file: no root
    LOOP = "loop"  # a loop device attached to that file: root


@dataclass(frozen=True, slots=True)
class LoopSpec:
    """A disk that the runner makes and removes: a file or loop device behind the device server."""

    size_bytes: int
    block_bytes: int
    node: LoopNode = LoopNode.FILE

    @property
    def window(self) -> Extent:
        """The blocks that the rig may write: all."""
        return Extent(0, self.size_bytes // self.block_bytes)


@dataclass(frozen=True, slots=True)
class SgSpec:
    """A real disk, known by its identity. The size is a part of the identity; the rig writes inside the window only."""

    wwn: str | None
    serial: str | None
    size_bytes: int
    block_bytes: int
    window: Extent


@dataclass(frozen=True, slots=True)
class ScsiDebugSpec:
    """A disk of the kernel's scsi_debug driver, in the lab."""

    size_bytes: int
    block_bytes: int

    @property
    def window(self) -> Extent:
        """The blocks that the rig may write: all."""
        return Extent(0, self.size_bytes // self.block_bytes)


class Backing(Enum):
    """What the kernel's target keeps the blocks of a tcm-loop disk on."""

    LOOP = "loop"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class TcmLoopSpec:
    """A disk of the kernel's own SCSI target looped back to itself, in the lab."""

    size_bytes: int
    block_bytes: int
    backing: Backing = Backing.LOOP

    @property
    def window(self) -> Extent:
        """The blocks that the rig may write: all."""
        return Extent(0, self.size_bytes // self.block_bytes)


@dataclass(frozen=True, slots=True)
class TcmuSpec:
    """A disk of the kernel whose answers are our device server's, in the lab; where a rule of `faults` matches, it fails."""

    size_bytes: int
    block_bytes: int
    faults: tuple[Rule, ...] = ()

    @property
    def window(self) -> Extent:
        """The blocks that the rig may write: all."""
        return Extent(0, self.size_bytes // self.block_bytes)


LabDisk: TypeAlias = ScsiDebugSpec | TcmLoopSpec | TcmuSpec
"""Disks that only a kernel of the lab is asked to make."""

DiskSpec: TypeAlias = LoopSpec | SgSpec | LabDisk


@dataclass(frozen=True, slots=True)
class Own:
    """A logical unit on the controller's own disk. Without a size it takes the rest of the disk."""

    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Redirect:
    """The first volume: lies on the controller's own disk, its new data goes to controller `to` while redirecting."""

    to: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Frozen:
    """The untouched first volume of the redirect LUN `of` of the same controller, read-only."""

    of: int


@dataclass(frozen=True, slots=True)
class Forward:
    """A logical unit of the other controller: whole CDBs are passed on to it."""

    controller: str
    lun: int


LunSpec: TypeAlias = Own | Redirect | Frozen | Forward


class Overcommit(Enum):
    """Whether a store may be smaller than what redirection can fill."""

    REFUSE = "refuse"
    ALLOW = "allow"


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """The place on a second disk where redirected blocks go. Without a size it is everything behind the own LUNs."""

    size_bytes: int | None = None
    overcommit: Overcommit = Overcommit.REFUSE


@dataclass(frozen=True, slots=True)
class ControllerSpec:
    """One controller; its LUNs in order. `store` is present exactly when the other controller redirects to this one."""

    name: str
    disk: str
    luns: Mapping[int, LunSpec]
    store: StoreSpec | None


@dataclass(frozen=True, slots=True)
class TlsSpec:
    """TLS between the controllers, with the files of each one, by name. No files at all: the run makes certificates."""

    files: Mapping[str, TlsFiles]


@dataclass(frozen=True, slots=True)
class Ethernet:
    """The second path over TCP. Requests wait `stall_s` seconds for a lost link, then fail.

    The faults in `standing` are at work all the time.
    """

    stall_s: float
    standing: tuple[LinkFault, ...] = ()
    tls: TlsSpec | None = None


@dataclass(frozen=True, slots=True)
class Serial:
    """The second path over a serial line of `baud` bits a second.

    `devices`: a tty or a URL of pyserial for each controller, by name. None: the run lays a line of its own.
    """

    baud: int
    stall_s: float
    flow: Flow = Flow.NONE
    compression: Compression = Compression.ZSTD
    devices: Mapping[str, str] | None = None


LinkSpec: TypeAlias = Ethernet | Serial


class HostPath(Enum):
    """How hosts reach the logical units."""

    NBD = "nbd"


@dataclass(frozen=True, slots=True)
class HostSpec:
    """The first path."""

    path: HostPath


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a controller's volumes lie on its disk. Extents are in blocks of the disk and do not overlap.

    `luns` holds the `own` and `redirect` LUNs: a frozen one shows the extent of another, a forwarded one lies elsewhere.
    """

    luns: Mapping[int, Extent]
    store: Extent | None


class Kernels(Enum):
    """How many kernels of the lab a rig runs on."""

    SHARED = "shared"  # controllers and host in one
    EACH = "each"  # one for each controller, one for the host


@dataclass(frozen=True, slots=True)
class LabSpec:
    """The kernels that a rig with disks of a SCSI kernel runs on."""

    kernels: Kernels = Kernels.SHARED


@dataclass(frozen=True, slots=True)
class Rig:
    """One rig file, whole."""

    name: str
    seed: int
    path: Path
    disks: Mapping[str, DiskSpec]
    controllers: Mapping[str, ControllerSpec]
    layout: Mapping[str, Placement]
    link: LinkSpec
    host: HostSpec
    scenarios: tuple[Scenario, ...]
    expect: tuple[Expectation, ...]
    lab: LabSpec = LabSpec()

    @property
    def crashing(self) -> frozenset[str]:
        """The controllers that steps or faults of the rig crash."""
        steps = [step for scenario in self.scenarios for step in scenario.steps]
        faults = [fault.action for step in steps if isinstance(step, Workload) for fault in step.faults]
        return frozenset(one.controller for one in (*steps, *faults) if isinstance(one, Crash))

    def resolve(self, controller: str, lun: int) -> tuple[str, int]:
        """The logical unit that a forwarded one ends at; any other is its own end. Raises KeyError."""
        spec = self.controllers[controller].luns[lun]
        return (spec.controller, spec.lun) if isinstance(spec, Forward) else (controller, lun)

    def extent(self, controller: str, lun: int) -> Extent:
        """Where the blocks of a logical unit lie, on the disk of the controller that it ends at. Raises KeyError."""
        end, number = self.resolve(controller, lun)
        spec = self.controllers[end].luns[number]
        return self.layout[end].luns[spec.of if isinstance(spec, Frozen) else number]

    def block_bytes(self, controller: str, lun: int) -> int:
        """The block size of a logical unit: that of the disk it ends at. Raises KeyError."""
        end, _ = self.resolve(controller, lun)
        return self.disks[self.controllers[end].disk].block_bytes
