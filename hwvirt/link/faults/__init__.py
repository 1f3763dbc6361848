"""Faults of a cable: pure, seeded stages for one direction, the same for Ethernet and the serial line.

A relay holds a `Lane` for each direction and a `Flow` for each connection and direction. It gives bytes and the time to
the flow, and sends on what `arrived`.
"""

from hwvirt.link.faults.forgery import Memory, Remembered
from hwvirt.link.faults.lane import Flow, Lane
from hwvirt.link.faults.lanes import Blow, Lanes
from hwvirt.link.faults.line_forgery import RememberedLine
from hwvirt.link.faults.model import FAULTS, SEALED, Extent, FaultKind, Form, LinkFault, Medium
from hwvirt.link.faults.stages import Strike
from hwvirt.link.faults.units import ETHERNET_FRAME_BYTES, KERNEL_RUN, PTY_RUN, Cutter, Frames, Runs, RunSize

__all__ = [
    "ETHERNET_FRAME_BYTES",
    "FAULTS",
    "KERNEL_RUN",
    "PTY_RUN",
    "SEALED",
    "Blow",
    "Cutter",
    "Extent",
    "FaultKind",
    "Flow",
    "Form",
    "Frames",
    "Lane",
    "Lanes",
    "LinkFault",
    "Medium",
    "Memory",
    "Remembered",
    "RememberedLine",
    "RunSize",
    "Runs",
    "Strike",
]
