"""The server's side of the negotiation: one table of talks, heard whole, byte by byte and cut at every place."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import replace

import pytest

from hwvirt.host.nbd.dialogue import Dialogue
from hwvirt.host.nbd.export import Export
from hwvirt.host.nbd.handshake import Agreement, negotiate
from hwvirt.host.nbd.wire import NbdViolation
from tests.host.ram_unit import RamUnit

FIXED, NO_ZEROES = 1, 2
EXPORT_NAME, ABORT, LIST, STARTTLS, INFO, GO, STRUCTURED_REPLY, LIST_META, SET_META = 1, 2, 3, 5, 6, 7, 8, 9, 10
ACK, SERVER, REP_INFO, META = 1, 2, 3, 4
UNSUP, POLICY, INVALID, UNKNOWN, TOO_BIG = (0x80000000 + code for code in (1, 2, 3, 6, 9))

GREETING = b"NBDMAGICIHAVEOPT\x00\x03"
PLAIN_FLAGS = 0x096D  # has flags, flush, FUA, trim, write zeroes, multi conn, fast zero
READ_ONLY_FLAGS = 0x010F
SEND_DF = 0x80


def exports() -> list[Export]:
    return [RamUnit(1024).export("a"), replace(RamUnit(64, 512).export("b", read_only=True), description="")]


def hello(flags: int = FIXED | NO_ZEROES) -> bytes:
    return struct.pack(">I", flags)


def option(kind: int, data: bytes = b"") -> bytes:
    return b"IHAVEOPT" + struct.pack(">II", kind, len(data)) + data


def answer(kind: int, reply: int, data: bytes = b"") -> bytes:
    return struct.pack(">QIII", 0x3E889045565A9, kind, reply, len(data)) + data


def counted(text: str) -> bytes:
    return struct.pack(">I", len(text.encode())) + text.encode()


def go(name: str, *infos: int, kind: int = GO) -> bytes:
    return option(kind, counted(name) + struct.pack(f">H{len(infos)}H", len(infos), *infos))


def meta(kind: int, name: str, *queries: str) -> bytes:
    return option(kind, counted(name) + struct.pack(">I", len(queries)) + b"".join(map(counted, queries)))


def export_info(kind: int, size: int, flags: int) -> bytes:
    return answer(kind, REP_INFO, struct.pack(">HQH", 0, size, flags))


def context(kind: int, number: int, name: str) -> bytes:
    return answer(kind, META, struct.pack(">I", number) + name.encode())


GO_A = go("a")
GO_A_ANSWER = export_info(GO, 4 << 20, PLAIN_FLAGS) + answer(GO, ACK)
STRUCTURED = option(STRUCTURED_REPLY)
STRUCTURED_ANSWER = answer(STRUCTURED_REPLY, ACK)
BASE, RESIDENCY = "base:allocation", "hwvirt:residency"

# what is claimed: what the client says, what the server answers after its greeting, (export, structured, contexts) or None
TALKS = {
    "go enters transmission": (hello() + GO_A, GO_A_ANSWER, ("a", False, ())),
    "the empty name is the first export": (hello() + go(""), GO_A_ANSWER, ("a", False, ())),
    "a read-only export says so": (
        hello() + go("b"),
        export_info(GO, 32768, READ_ONLY_FLAGS) + answer(GO, ACK),
        ("b", False, ()),
    ),
    "info tells what it is asked and goes on": (
        hello() + go("a", 3, 2, 1, 77, kind=INFO) + GO_A,
        export_info(INFO, 4 << 20, PLAIN_FLAGS)
        + answer(INFO, REP_INFO, b"\x00\x01a")
        + answer(INFO, REP_INFO, b"\x00\x02a disk in memory")
        + answer(INFO, REP_INFO, struct.pack(">HIII", 3, 4096, 4096, 32 << 20))
        + answer(INFO, ACK)
        + GO_A_ANSWER,
        ("a", False, ()),
    ),
    "the preferred size is a page even for small blocks": (
        hello() + go("b", 3),
        export_info(GO, 32768, READ_ONLY_FLAGS)
        + answer(GO, REP_INFO, struct.pack(">HIII", 3, 512, 4096, 32 << 20))
        + answer(GO, ACK),
        ("b", False, ()),
    ),
    "an unknown export is an error that can be mended": (
        hello() + go("c") + GO_A,
        answer(GO, UNKNOWN, b"no export 'c'") + GO_A_ANSWER,
        ("a", False, ()),
    ),
    "export name without zeroes": (
        hello() + option(EXPORT_NAME, b"a"),
        struct.pack(">QH", 4 << 20, PLAIN_FLAGS),
        ("a", False, ()),
    ),
    "export name with zeroes": (
        hello(FIXED) + option(EXPORT_NAME, b"a"),
        struct.pack(">QH", 4 << 20, PLAIN_FLAGS) + bytes(124),
        ("a", False, ()),
    ),
    "export name is all that a plain newstyle client may say": (
        hello(0) + option(EXPORT_NAME, b"a"),
        struct.pack(">QH", 4 << 20, PLAIN_FLAGS) + bytes(124),
        ("a", False, ()),
    ),
    "abort is acknowledged": (hello() + option(ABORT, b"whatever"), answer(ABORT, ACK), None),
    "list names all exports with their descriptions": (
        hello() + option(LIST) + GO_A,
        answer(LIST, SERVER, counted("a") + b"a disk in memory")
        + answer(LIST, SERVER, counted("b"))
        + answer(LIST, ACK)
        + GO_A_ANSWER,
        ("a", False, ()),
    ),
    "list with data is invalid": (
        hello() + option(LIST, b"x") + GO_A,
        answer(LIST, INVALID, b"the option is too long") + GO_A_ANSWER,
        ("a", False, ()),
    ),
    "TLS is against the policy": (
        hello() + option(STARTTLS) + GO_A,
        answer(STARTTLS, POLICY, b"this server speaks no TLS") + GO_A_ANSWER,
        ("a", False, ()),
    ),
    "an unknown option is unsupported": (
        hello() + option(99, b"data") + GO_A,
        answer(99, UNSUP, b"unknown option") + GO_A_ANSWER,
        ("a", False, ()),
    ),
    "structured replies allow DF": (
        hello() + STRUCTURED + GO_A,
        STRUCTURED_ANSWER + export_info(GO, 4 << 20, PLAIN_FLAGS | SEND_DF) + answer(GO, ACK),
        ("a", True, ()),
    ),
    "structured replies with data are invalid": (
        hello() + option(STRUCTURED_REPLY, b"x") + GO_A,
        answer(STRUCTURED_REPLY, INVALID, b"the option is too long") + GO_A_ANSWER,
        ("a", False, ()),
    ),
    "contexts need structured replies": (
        hello() + meta(SET_META, "a", BASE) + GO_A,
        answer(SET_META, INVALID, b"metadata contexts need structured replies") + GO_A_ANSWER,
        ("a", False, ()),
    ),
    "list without a query tells all contexts": (
        hello() + STRUCTURED + meta(LIST_META, "a") + option(ABORT),
        STRUCTURED_ANSWER
        + context(LIST_META, 0, BASE)
        + context(LIST_META, 0, RESIDENCY)
        + answer(LIST_META, ACK)
        + answer(ABORT, ACK),
        None,
    ),
    "a namespace lists its contexts, an unknown one none": (
        hello() + STRUCTURED + meta(LIST_META, "a", "hwvirt:") + meta(LIST_META, "a", "qemu:") + option(ABORT),
        STRUCTURED_ANSWER
        + context(LIST_META, 0, RESIDENCY)
        + answer(LIST_META, ACK)
        + answer(LIST_META, ACK)
        + answer(ABORT, ACK),
        None,
    ),
    "selected contexts get numbers, a namespace selects nothing": (
        hello() + STRUCTURED + meta(SET_META, "a", RESIDENCY, "base:", BASE) + GO_A,
        STRUCTURED_ANSWER
        + context(SET_META, 1, BASE)
        + context(SET_META, 2, RESIDENCY)
        + answer(SET_META, ACK)
        + export_info(GO, 4 << 20, PLAIN_FLAGS | SEND_DF)
        + answer(GO, ACK),
        ("a", True, ((1, BASE), (2, RESIDENCY))),
    ),
    "the last selection counts, also when it fails": (
        hello() + STRUCTURED + meta(SET_META, "a", BASE) + meta(SET_META, "c", BASE) + GO_A,
        STRUCTURED_ANSWER
        + context(SET_META, 1, BASE)
        + answer(SET_META, ACK)
        + answer(SET_META, UNKNOWN, b"no export 'c'")
        + export_info(GO, 4 << 20, PLAIN_FLAGS | SEND_DF)
        + answer(GO, ACK),
        ("a", True, ()),
    ),
    "contexts selected for another export do not count": (
        hello() + STRUCTURED + meta(SET_META, "b", BASE) + GO_A,
        STRUCTURED_ANSWER
        + context(SET_META, 1, BASE)
        + answer(SET_META, ACK)
        + export_info(GO, 4 << 20, PLAIN_FLAGS | SEND_DF)
        + answer(GO, ACK),
        ("a", True, ()),
    ),
    "more queries than anybody needs are too many": (
        hello() + STRUCTURED + meta(SET_META, "a", *(["x:y"] * 65)) + option(ABORT),
        STRUCTURED_ANSWER + answer(SET_META, TOO_BIG, b"too many queries") + answer(ABORT, ACK),
        None,
    ),
    "a string longer than its option is invalid": (
        hello() + option(GO, struct.pack(">I", 50) + b"a") + GO_A,
        answer(GO, INVALID, b"a string is longer than the option") + GO_A_ANSWER,
        ("a", False, ()),
    ),
    "a string beyond the protocol's limit is invalid": (
        hello() + option(INFO, struct.pack(">I", 4097) + bytes(4099)) + GO_A,
        answer(INFO, INVALID, b"a string is too long") + GO_A_ANSWER,
        ("a", False, ()),
    ),
    "a string that is not UTF-8 is invalid": (
        hello() + option(GO, b"\x00\x00\x00\x01\xff\x00\x00") + GO_A,
        answer(GO, INVALID, b"a string is not UTF-8") + GO_A_ANSWER,
        ("a", False, ()),
    ),
    "an option that ends too early is invalid": (
        hello() + option(GO, b"\x00\x00") + GO_A,
        answer(GO, INVALID, b"the option is too short") + GO_A_ANSWER,
        ("a", False, ()),
    ),
}

VIOLATIONS = {
    "unknown client flags": (hello(4), "the client set unknown flags 0x4"),
    "no magic": (hello() + bytes(16), "an option began with 0x0000000000000000"),
    "an option that is too long": (
        hello() + b"IHAVEOPT" + struct.pack(">II", 7, 65537),
        "option 7 has 65537 bytes of data, more than 65536",
    ),
    "an option without fixed newstyle": (hello(0) + option(LIST), "option 3 without fixed newstyle"),
    "an unknown export by name": (
        hello() + option(EXPORT_NAME, b"zz"),
        "the client asked for export 'zz', which does not exist",
    ),
    "an export name that is not UTF-8": (hello() + option(EXPORT_NAME, b"\xff"), "export name: a string is not UTF-8"),
    "endless options": (hello() + option(LIST) * 257, "the client asked for more than 256 options"),
}


def talk(pieces: Sequence[bytes]) -> tuple[bytes, Dialogue[Agreement | None]]:
    """What the server says to the pieces, and the dialogue afterwards."""
    dialogue = Dialogue(negotiate(exports()))
    unread = b""
    said = b"".join(dialogue.outgoing())
    for piece in pieces:
        unread += piece
        unread = unread[dialogue.receive(memoryview(unread)) :]
        said += b"".join(dialogue.outgoing())
    assert not (dialogue.finished and unread)
    return said, dialogue


def outcome(dialogue: Dialogue[Agreement | None]) -> tuple[str, bool, tuple[tuple[int, str], ...]] | None:
    agreement = dialogue.agreement
    return None if agreement is None else (agreement.export.name, agreement.structured, agreement.contexts)


@pytest.mark.parametrize("claim", TALKS)
def test_talk(claim: str) -> None:
    heard, expected, agreed = TALKS[claim]
    said, dialogue = talk([heard])
    assert said == GREETING + expected
    assert dialogue.finished
    assert outcome(dialogue) == agreed


@pytest.mark.parametrize("claim", TALKS)
def test_talk_byte_by_byte_is_the_same(claim: str) -> None:
    heard, expected, agreed = TALKS[claim]
    said, dialogue = talk([bytes([byte]) for byte in heard])
    assert said == GREETING + expected
    assert outcome(dialogue) == agreed


@pytest.mark.parametrize("claim", TALKS)
def test_talk_cut_at_any_place_says_a_beginning_and_agrees_nothing(claim: str) -> None:
    heard, expected, _ = TALKS[claim]
    for cut in range(len(heard)):
        said, dialogue = talk([heard[:cut]])
        assert (GREETING + expected).startswith(said)
        assert not dialogue.finished
        assert dialogue.agreement is None


def test_bytes_behind_the_handshake_are_left_for_the_transmission() -> None:
    dialogue = Dialogue(negotiate(exports()))
    heard = hello() + GO_A
    assert dialogue.receive(memoryview(heard + b"request")) == len(heard)


@pytest.mark.parametrize("claim", VIOLATIONS)
def test_violation_ends_the_talk(claim: str) -> None:
    heard, reason = VIOLATIONS[claim]
    with pytest.raises(NbdViolation) as caught:
        talk([heard])
    assert str(caught.value) == reason
