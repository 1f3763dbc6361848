"""The error tree. The type says who is to blame, the fields say what happened, the family gives the exit code.

    HwvirtError
      UsageError            2  the command line
        PlacedError         2  a file that people write, with file, line and column
          RigFileError      2  the rig file
            RigFileRefusal  3  the rig file, where it could name the wrong disk; a SafetyRefusal, too
          ConfigError       2  the configuration file of a controller
      SafetyRefusal         3  a disk that must not be written
      InfrastructureError   4  disk, link, lab or port that does not do its part
        DiskError           4
        LinkError           4
          LocalLinkError    4  we used the link wrongly
          PeerError         4  the other end broke the protocol
        ControllerError     4  a daemon that did not start, answer or stop
          StateError        4  a state directory that cannot be used (locked, torn, other version)
      RigError              4  a rig that did not do what it was told
      NothingRan            5  a verdict about nothing, or about less than was expected
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

__all__ = [
    "ConfigError",
    "ControllerError",
    "DiskError",
    "ExitCode",
    "HwvirtError",
    "InfrastructureError",
    "LinkError",
    "LocalLinkError",
    "NothingRan",
    "PeerError",
    "PlacedError",
    "RigError",
    "RigFileError",
    "RigFileRefusal",
    "SafetyRefusal",
    "StateError",
    "UsageError",
]


class ExitCode(IntEnum):
    """What `hwvirt` tells the shell."""

    PASSED = 0
    BROKEN = 1
    USAGE = 2
    REFUSED = 3
    INFRASTRUCTURE = 4
    NOTHING_RAN = 5
    INTERRUPTED = 130
    UNREAD = 141  # as a shell shows SIGPIPE: 128 + 13


class HwvirtError(Exception):
    """Base of every error that a user may see. `next_step` is the sentence that helps; it may be empty."""

    exit_code: ClassVar[ExitCode] = ExitCode.INFRASTRUCTURE

    def __init__(self, reason: str, *, next_step: str = "") -> None:
        self.reason = reason
        self.next_step = next_step
        super().__init__(f"{reason} {next_step}" if next_step else reason)


class UsageError(HwvirtError):
    """The command line asks for something that does not exist or does not fit together."""

    exit_code = ExitCode.USAGE


class PlacedError(UsageError):
    """A file that cannot be used. `line` and `column` count from 1."""

    def __init__(self, file: str, line: int, column: int, reason: str, *, next_step: str = "") -> None:
        self.file, self.line, self.column = file, line, column
        super().__init__(f"{file}:{line}:{column}: {reason}", next_step=next_step)


class RigFileError(PlacedError):
    """A rig file that cannot be used."""


class ConfigError(PlacedError):
    """A controller's configuration file that cannot be used."""


class SafetyRefusal(HwvirtError):
    """A disk that must not be written: names the disk, the reason and the next step."""

    exit_code = ExitCode.REFUSED


class RigFileRefusal(SafetyRefusal, RigFileError):
    """A rig file that names a real disk so that another one might be written."""


class InfrastructureError(HwvirtError):
    """Something outside the correlation failed: a disk, a link, a port, a process."""


class DiskError(InfrastructureError):
    """A disk or its node cannot be opened, attached or described."""


class LinkError(InfrastructureError):
    """The second path failed."""


class LocalLinkError(LinkError):
    """We used the link wrongly: sent in a state that forbids it, or beyond the peer's credit."""


class PeerError(LinkError):
    """The other end of the link broke the protocol, or is not who it should be."""


class ControllerError(InfrastructureError):
    """A controller daemon did not start, answer or stop."""


class StateError(ControllerError):
    """A state directory or one of its files cannot be used."""


class RigError(InfrastructureError):
    """The rig could not do a step, or a fault of it never struck."""


class NothingRan(HwvirtError):
    """A verdict about nothing is not a pass."""

    exit_code = ExitCode.NOTHING_RAN
