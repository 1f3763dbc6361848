"""Numbers and layouts of the NBD protocol, fixed newstyle. Ref: NetworkBlockDevice/nbd doc/proto.md."""

from __future__ import annotations

from enum import IntEnum, IntFlag
from struct import Struct
from typing import Final

from hwvirt.errors import InfrastructureError

__all__ = [
    "BLOCK_SIZES",
    "CHUNK",
    "CLIENT_FLAGS",
    "CONTEXT",
    "DESCRIPTOR",
    "ERROR_CHUNK",
    "EXPORT",
    "EXPORT_NAME_PADDING",
    "EXPORT_NAME_REPLY",
    "GREETING",
    "HOLE",
    "MAX_NAME_BYTES",
    "MAX_TRANSFER_BYTES",
    "OPTION",
    "OPTION_REPLY",
    "PREFERRED_BYTES",
    "REQUEST",
    "SIMPLE_REPLY",
    "U16",
    "U32",
    "U64",
    "ChunkFlag",
    "ChunkType",
    "ClientFlag",
    "CommandFlag",
    "CommandType",
    "HandshakeFlag",
    "Info",
    "Magic",
    "NbdViolation",
    "Option",
    "Reply",
    "State",
    "TransmissionFlag",
    "is_error",
]


class NbdViolation(InfrastructureError):
    """The other end of an NBD connection broke the protocol; the connection cannot go on."""


class Magic(IntEnum):
    """What frames begin with."""

    INIT = 0x4E42444D41474943  # "NBDMAGIC"
    OPTION = 0x49484156454F5054  # "IHAVEOPT"
    OPTION_REPLY = 0x0003E889045565A9
    REQUEST = 0x25609513
    SIMPLE_REPLY = 0x67446698
    CHUNK = 0x668E33EF


class HandshakeFlag(IntFlag):
    """What the server says before anything is asked."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class ClientFlag(IntFlag):
    """The client's answer to the handshake flags."""

    FIXED_NEWSTYLE = 1 << 0
    NO_ZEROES = 1 << 1


class TransmissionFlag(IntFlag):
    """What an export can do."""

    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_FLUSH = 1 << 2
    SEND_FUA = 1 << 3
    ROTATIONAL = 1 << 4
    SEND_TRIM = 1 << 5
    SEND_WRITE_ZEROES = 1 << 6
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8
    SEND_CACHE = 1 << 10
    SEND_FAST_ZERO = 1 << 11


class Option(IntEnum):
    """What a client may ask for during the handshake."""

    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class Reply(IntEnum):
    """Types of option replies; errors have bit 31 set."""

    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = 0x80000001
    ERR_POLICY = 0x80000002
    ERR_INVALID = 0x80000003
    ERR_PLATFORM = 0x80000004
    ERR_TLS_REQD = 0x80000005
    ERR_UNKNOWN = 0x80000006
    ERR_SHUTDOWN = 0x80000007
    ERR_BLOCK_SIZE_REQD = 0x80000008
    ERR_TOO_BIG = 0x80000009


class Info(IntEnum):
    """Facts about an export, in replies to INFO and GO."""

    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class CommandType(IntEnum):
    """Requests of the transmission phase."""

    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class CommandFlag(IntEnum):
    """Modifiers of a request. No IntFlag: its operators are Python calls, too dear for every request."""

    FUA = 1 << 0
    NO_HOLE = 1 << 1
    DF = 1 << 2
    REQ_ONE = 1 << 3
    FAST_ZERO = 1 << 4


class ChunkFlag(IntEnum):
    """Modifiers of a structured reply chunk."""

    DONE = 1 << 0


class ChunkType(IntEnum):
    """Types of structured reply chunks; errors have bit 15 set."""

    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = 0x8001
    ERROR_OFFSET = 0x8002


class State(IntFlag):
    """Status flags of the metadata context `base:allocation`."""

    HOLE = 1 << 0
    ZERO = 1 << 1


GREETING: Final = Struct(">QQH")  # Magic.INIT, Magic.OPTION, HandshakeFlag
CLIENT_FLAGS: Final = Struct(">I")
OPTION: Final = Struct(">QII")  # Magic.OPTION, Option, length of the data that follows
OPTION_REPLY: Final = Struct(">QIII")  # Magic.OPTION_REPLY, Option, Reply, length of the data that follows
EXPORT_NAME_REPLY: Final = Struct(">QH")  # size in bytes, TransmissionFlag
EXPORT_NAME_PADDING: Final = bytes(124)  # follows EXPORT_NAME_REPLY unless ClientFlag.NO_ZEROES
EXPORT: Final = Struct(">HQH")  # Info.EXPORT, size in bytes, TransmissionFlag
BLOCK_SIZES: Final = Struct(">HIII")  # Info.BLOCK_SIZE, minimum, preferred, maximum in bytes
CONTEXT: Final = Struct(">I")  # metadata context ID; the name follows

REQUEST: Final = Struct(">IHHQQI")  # Magic.REQUEST, CommandFlag, CommandType, cookie, offset, length in bytes
SIMPLE_REPLY: Final = Struct(">IIQ")  # Magic.SIMPLE_REPLY, error, cookie
CHUNK: Final = Struct(">IHHQI")  # Magic.CHUNK, ChunkFlag, ChunkType, cookie, length of the payload that follows
HOLE: Final = Struct(">QI")  # offset, size in bytes
ERROR_CHUNK: Final = Struct(">IH")  # error, length of the message that follows
DESCRIPTOR: Final = Struct(">II")  # length in bytes, status flags

U16: Final = Struct(">H")
U32: Final = Struct(">I")
U64: Final = Struct(">Q")

MAX_NAME_BYTES: Final = 4096
"""The protocol's limit of every string."""
MAX_TRANSFER_BYTES: Final = 32 << 20
"""What every server should accept in one READ or WRITE, and the most that ours does."""
PREFERRED_BYTES: Final = 4096


def is_error(reply: int) -> bool:
    """Whether an option reply of this type is an error."""
    return bool(reply & 0x80000000)
