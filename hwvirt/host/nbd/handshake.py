"""The server's side of fixed newstyle negotiation, as a pure script. Ref: NetworkBlockDevice/nbd doc/proto.md.

Nothing is remembered but what the agreement holds, every string and list is bounded, and every option that is not known
or not wanted is answered with an error that lets the client go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from struct import Struct, error
from typing import Final

from hwvirt.host.nbd.dialogue import Script, Step
from hwvirt.host.nbd.export import CONTEXTS, Export
from hwvirt.host.nbd.wire import (
    BLOCK_SIZES,
    CLIENT_FLAGS,
    CONTEXT,
    EXPORT,
    EXPORT_NAME_PADDING,
    EXPORT_NAME_REPLY,
    GREETING,
    MAX_NAME_BYTES,
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
)

__all__ = ["Agreement", "negotiate"]

_MAX_OPTION_BYTES: Final = 1 << 16
_MAX_OPTIONS: Final = 256
_MAX_QUERIES: Final = 64
_KNOWN_CLIENT_FLAGS: Final = int(ClientFlag.FIXED_NEWSTYLE | ClientFlag.NO_ZEROES)


@dataclass(frozen=True, slots=True)
class Agreement:
    """How the transmission phase goes: the export, the form of replies, and metadata context IDs with their names."""

    export: Export
    structured: bool
    contexts: tuple[tuple[int, str], ...]


@dataclass(slots=True)
class _Talk:
    """What has been said so far."""

    exports: Sequence[Export]
    structured: bool = False
    chosen: Export | None = None  # the export that `contexts` were selected for
    contexts: tuple[tuple[int, str], ...] = ()

    def find(self, name: str) -> Export | None:
        """The export of this name; the empty name is the first export."""
        if not name and self.exports:
            return self.exports[0]
        return next((export for export in self.exports if export.name == name), None)

    def flags(self, export: Export) -> TransmissionFlag:
        """The export's flags as they hold on this connection."""
        return export.flags | (TransmissionFlag.SEND_DF if self.structured else TransmissionFlag(0))

    def agree(self, export: Export) -> Agreement:
        """What the transmission phase starts with."""
        return Agreement(export, self.structured, self.contexts if self.chosen is export else ())


class _Invalid(Exception):
    """An option whose data does not hold together; the client is told why."""


@dataclass(slots=True)
class _Reader:
    """Takes fields off the data of an option."""

    data: bytes
    at: int = field(default=0)

    def number(self, layout: Struct) -> int:
        """The next number."""
        try:
            (value,) = layout.unpack_from(self.data, self.at)
        except error as reason:
            raise _Invalid("the option is too short") from reason
        self.at += layout.size
        return int(value)

    def string(self) -> str:
        """The next string, which comes with its length."""
        size = self.number(U32)
        if size > MAX_NAME_BYTES:
            raise _Invalid("a string is too long")
        raw = self.data[self.at : self.at + size]
        if len(raw) < size:
            raise _Invalid("a string is longer than the option")
        self.at += size
        return _text(raw)

    def end(self) -> None:
        """Nothing may follow."""
        if self.at != len(self.data):
            raise _Invalid("the option is too long")


def negotiate(exports: Sequence[Export]) -> Script[Agreement | None]:
    """Talks with one client until it has chosen an export, or None when it has ended the talk.

    Raises NbdViolation for whatever cannot be answered.
    """
    talk = _Talk(exports)
    greeting = GREETING.pack(Magic.INIT, Magic.OPTION, HandshakeFlag.FIXED_NEWSTYLE | HandshakeFlag.NO_ZEROES)
    (client_flags,) = CLIENT_FLAGS.unpack((yield Step(greeting, CLIENT_FLAGS.size)))
    if client_flags & ~_KNOWN_CLIENT_FLAGS:
        raise NbdViolation(f"the client set unknown flags {client_flags:#x}")
    fixed = bool(client_flags & ClientFlag.FIXED_NEWSTYLE)
    reply = b""
    for _ in range(_MAX_OPTIONS):
        magic, option, length = OPTION.unpack((yield Step(reply, OPTION.size)))
        if magic != Magic.OPTION:
            raise NbdViolation(f"an option began with {magic:#018x}")
        if length > _MAX_OPTION_BYTES:
            raise NbdViolation(f"option {option} has {length} bytes of data, more than {_MAX_OPTION_BYTES}")
        data = yield Step(b"", length)
        if option == Option.EXPORT_NAME:
            chosen = _export_by_name(talk, data)
            padding = b"" if client_flags & ClientFlag.NO_ZEROES else EXPORT_NAME_PADDING
            yield Step(EXPORT_NAME_REPLY.pack(chosen.size_bytes, talk.flags(chosen)) + padding, 0)
            return talk.agree(chosen)
        if not fixed:
            raise NbdViolation(f"option {option} without fixed newstyle")
        if option == Option.ABORT:
            yield Step(_option_reply(option, Reply.ACK), 0)
            return None
        try:
            reply, accepted = _answer(talk, option, data)
        except _Invalid as reason:
            reply, accepted = _option_reply(option, Reply.ERR_INVALID, str(reason).encode()), None
        if accepted is not None:
            yield Step(reply, 0)
            return talk.agree(accepted)
    raise NbdViolation(f"the client asked for more than {_MAX_OPTIONS} options")


def _answer(talk: _Talk, option: int, data: bytes) -> tuple[bytes, Export | None]:
    """The reply to one option, and the export with which GO has ended the talk."""
    match option:
        case Option.LIST:
            return _list(talk, data), None
        case Option.INFO:
            return _info(talk, option, data)[0], None
        case Option.GO:
            return _info(talk, option, data)
        case Option.STRUCTURED_REPLY:
            _Reader(data).end()
            talk.structured = True
            return _option_reply(option, Reply.ACK), None
        case Option.LIST_META_CONTEXT | Option.SET_META_CONTEXT:
            return _meta_context(talk, Option(option), data), None
        case Option.STARTTLS:
            return _option_reply(option, Reply.ERR_POLICY, b"this server speaks no TLS"), None
        case _:
            return _option_reply(option, Reply.ERR_UNSUP, b"unknown option"), None


def _list(talk: _Talk, data: bytes) -> bytes:
    _Reader(data).end()
    servers = [
        _option_reply(Option.LIST, Reply.SERVER, _counted(export.name) + export.description.encode())
        for export in talk.exports
    ]
    return b"".join((*servers, _option_reply(Option.LIST, Reply.ACK)))


def _info(talk: _Talk, option: int, data: bytes) -> tuple[bytes, Export | None]:
    reader = _Reader(data)
    name = reader.string()
    wanted = {reader.number(U16) for _ in range(reader.number(U16))}
    reader.end()
    export = talk.find(name)
    if export is None:
        return _option_reply(option, Reply.ERR_UNKNOWN, f"no export {name!r}".encode()), None
    facts = {
        Info.EXPORT: EXPORT.pack(Info.EXPORT, export.size_bytes, talk.flags(export)),
        Info.NAME: U16.pack(Info.NAME) + export.name.encode(),
        Info.DESCRIPTION: U16.pack(Info.DESCRIPTION) + export.description.encode(),
        Info.BLOCK_SIZE: BLOCK_SIZES.pack(Info.BLOCK_SIZE, *export.sizes_bytes),
    }
    replies = [
        _option_reply(option, Reply.INFO, payload)
        for info, payload in facts.items()
        if info == Info.EXPORT or info in wanted
    ]
    return b"".join((*replies, _option_reply(option, Reply.ACK))), export


def _meta_context(talk: _Talk, option: Option, data: bytes) -> bytes:
    selecting = option is Option.SET_META_CONTEXT
    if selecting:
        talk.chosen, talk.contexts = None, ()  # also when this option fails
    if not talk.structured:
        raise _Invalid("metadata contexts need structured replies")
    reader = _Reader(data)
    name = reader.string()
    count = reader.number(U32)
    if count > _MAX_QUERIES:
        return _option_reply(option, Reply.ERR_TOO_BIG, b"too many queries")
    queries = {reader.string() for _ in range(count)}
    reader.end()
    export = talk.find(name)
    if export is None:
        return _option_reply(option, Reply.ERR_UNKNOWN, f"no export {name!r}".encode())
    if selecting:
        names = [context for context in CONTEXTS if context in queries]
        talk.chosen, talk.contexts = export, tuple(enumerate(names, 1))
        found = list(talk.contexts)
    else:
        found = [(0, context) for context in CONTEXTS if not queries or _matches(context, queries)]
    replies = [
        _option_reply(option, Reply.META_CONTEXT, CONTEXT.pack(number) + context.encode()) for number, context in found
    ]
    return b"".join((*replies, _option_reply(option, Reply.ACK)))


def _matches(context: str, queries: set[str]) -> bool:
    """Whether a list query names this context, or its whole namespace with nothing behind the colon."""
    return context in queries or context.partition(":")[0] + ":" in queries


def _export_by_name(talk: _Talk, data: bytes) -> Export:
    try:
        name = _text(data)
    except _Invalid as reason:
        raise NbdViolation(f"export name: {reason}") from reason
    export = talk.find(name)
    if export is None:
        raise NbdViolation(f"the client asked for export {name[:64]!r}, which does not exist")
    return export


def _text(raw: bytes) -> str:
    if len(raw) > MAX_NAME_BYTES:
        raise _Invalid("a string is too long")
    try:
        return raw.decode()
    except UnicodeDecodeError as reason:
        raise _Invalid("a string is not UTF-8") from reason


def _counted(text: str) -> bytes:
    raw = text.encode()
    return U32.pack(len(raw)) + raw


def _option_reply(option: int, reply: Reply, data: bytes = b"") -> bytes:
    return OPTION_REPLY.pack(Magic.OPTION_REPLY, option, reply, len(data)) + data
