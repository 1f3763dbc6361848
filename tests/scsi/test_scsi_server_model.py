"""The device server against a bytearray: random batches of everything, and garbage that must never raise."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from hwvirt.buffers import joined
from hwvirt.scsi import opcodes
from hwvirt.scsi.cdb import read_16, synchronize_cache_16, unmap, verify_16, write_16, write_same_16, write_same_16_unmap
from hwvirt.scsi.command import Command, Completion
from hwvirt.scsi.layout import Values
from hwvirt.scsi.opcodes import COMMANDS
from hwvirt.scsi.sense import LBA_OUT_OF_RANGE, MALFORMED_SENSE, MISCOMPARE, decode_sense
from hwvirt.scsi.server.transfers import FORMS
from hwvirt.scsi.status import Status
from hwvirt.scsi.volume import Extent
from tests.scsi.scsikit import BLOCK, Bench, block, blocks

BLOCKS = 40


class Model:
    """What the commands mean, one at a time, on a bytearray."""

    def __init__(self) -> None:
        self.content = bytearray(BLOCKS * BLOCK)

    def get(self, lba: int, count: int) -> bytes:
        return bytes(self.content[lba * BLOCK : (lba + count) * BLOCK])

    def put(self, lba: int, data: bytes) -> None:
        self.content[lba * BLOCK : lba * BLOCK + len(data)] = data

    def expect(self, what: str, lba: int, count: int, tag: int) -> tuple[Command, bytes | None]:
        """A command and its Data-In; None when the unit must refuse it."""
        fits = lba + count <= BLOCKS
        data = blocks(*range(tag, tag + count))
        command = self.command(what, lba, count, tag, data)
        if not fits:
            return command, None
        match what:
            case "read":
                return command, self.get(lba, count)
            case "write" | "write fua":
                self.put(lba, data)
            case "unmap" | "zero":
                self.put(lba, bytes(count * BLOCK))
            case "same":
                self.put(lba, block(tag) * count)
            case "swap":
                self.put(lba, data)
            case "swap wrong" if count:
                return command, None
        return command, b""

    def command(self, what: str, lba: int, count: int, tag: int, data: bytes) -> Command:
        match what:
            case "read":
                return Command(read_16(lba, count), (), count * BLOCK)
            case "write" | "write fua":
                cut = tag % (len(data) + 1)
                return Command(write_16(lba, count, fua=what == "write fua"), (data[:cut], memoryview(data)[cut:]))
            case "unmap":
                return unmap([Extent(lba, count)])
            case "zero":
                return write_same_16_unmap(lba, count)
            case "same":
                return Command(write_same_16(lba, count), (block(tag),))
            case "verify":
                return Command(verify_16(lba, count))
            case "swap" | "swap wrong":
                found = self.get(lba, count).ljust(count * BLOCK, b"\0")
                if what == "swap wrong":
                    found = found[:-1] + bytes([found[-1] ^ 1]) if found else b""
                return Command(opcodes.COMPARE_AND_WRITE.encode(lba=lba, blocks=count), (found, data))
            case _:
                return Command(synchronize_cache_16())


@st.composite
def steps(draw: st.DrawFn) -> tuple[str, int, int, int]:
    what = draw(st.sampled_from(["read", "read", "write", "write", "write fua", "unmap", "zero", "same", "verify", "swap"]))
    if draw(st.integers(0, 9)) == 0:
        what = draw(st.sampled_from(["swap wrong", "flush"]))
    least = 1 if what in ("same", "zero") else 0
    return what, draw(st.integers(0, BLOCKS)), draw(st.integers(least, 6)), draw(st.integers(1, 900))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(steps(), max_size=8), max_size=8))
def test_any_sequence_of_batches_does_what_one_command_after_the_other_would(
    story: list[list[tuple[str, int, int, int]]],
) -> None:
    bench, model = Bench(BLOCKS), Model()
    for batch in story:
        expected = [model.expect(*(("flush", 0, 0, 1) if step[0] == "flush" else step)) for step in batch]
        answers = bench.batch(*(command for command, _ in expected))
        for answer, (_, data) in zip(answers, expected, strict=True):
            if data is None:
                sense = decode_sense(answer.sense)
                assert sense == LBA_OUT_OF_RANGE or sense == MISCOMPARE.at(sense.information or 0)
            else:
                assert answer == Completion(Status.GOOD, answer.data)
                assert bytes(joined(answer.data)) == data
    assert bench.volume.content == model.content


garbage = st.binary(max_size=18)
nearly = st.builds(
    lambda row, noise, bits: bytes(byte & bits for byte in (*row.encode()[:2], *noise))[: row.layout.size],
    st.sampled_from(COMMANDS),
    st.binary(min_size=14, max_size=14),
    st.sampled_from([0xFF, 0x8F, 0xF1]),
)


@settings(max_examples=600, deadline=None)
@given(st.lists(st.tuples(garbage | nearly, st.lists(st.binary(max_size=64), max_size=3), st.integers(0, 9000)), max_size=6))
def test_garbage_is_answered_and_never_raises(story: list[tuple[bytes, list[bytes], int]]) -> None:
    bench = Bench(BLOCKS)
    answers = bench.batch(*(Command(cdb, data_out, expected) for cdb, data_out, expected in story))
    assert len(answers) == len(story)
    for answer, (_, data_out, expected) in zip(answers, story, strict=True):
        assert len(joined(answer.data)) <= expected
        assert 0 <= answer.residual <= expected + sum(map(len, data_out))
        assert answer.good or decode_sense(answer.sense) != MALFORMED_SENSE


@given(st.sampled_from(sorted(FORMS)), st.binary(min_size=15, max_size=15))
def test_fast_decoding_agrees_with_the_layout(opcode: bytes, rest: bytes) -> None:
    cdb = opcode + rest
    row = opcodes.find(cdb)
    assert row is not None
    form = FORMS[opcode]
    flags, lba, count, control = form.unpack(cdb)
    fields: Values = row.layout.decode(cdb)
    if form.size == 6:
        assert (lba, count) == (fields.lba_high << 16 | fields.lba_low, fields.blocks or 256)
    else:
        assert (lba, count, flags) == (fields.lba, fields.blocks, cdb[1])
    assert control == fields.control
    reserved = ~row.layout.usage[1] & 0xFF
    assert bool(flags & form.refused) == bool(cdb[1] & reserved or fields.get("protect", 0))
