"""The history keeps order, fates and what was seen, and survives a file."""

from __future__ import annotations

import io

import pytest

from hwvirt.errors import UsageError
from hwvirt.rig.judge.history import Fate, History, Kind, Mark, MarkKind
from hwvirt.rig.judge.history_file import dump_history, load_history


def _history() -> History:
    return History(volume=1, seed=42, block_bytes=4096, writer=2)


def _write(history: History, kind: Kind = Kind.WRITE, fate: Fate = Fate.ACKNOWLEDGED) -> int:
    number = history.begin(kind, 8, 4)
    history.end(number, fate)
    return number


def test_versions_are_operation_numbers_from_1() -> None:
    history = _history()
    assert [_write(history), _write(history)] == [1, 2]
    assert len(history) == 2


def test_an_operation_without_an_answer_is_in_doubt() -> None:
    history = _history()
    number = history.begin(Kind.WRITE, 8, 4)
    assert history.operation(number).fate == Fate.IN_DOUBT
    assert history.operation(number).ended == 0


def test_a_flush_covers_what_had_completed_before_it_was_submitted() -> None:
    history = _history()
    covered = _write(history)
    overlapping = history.begin(Kind.WRITE, 8, 4)
    flush = history.begin(Kind.FLUSH, 0, 0)
    history.end(overlapping, Fate.ACKNOWLEDGED)
    history.end(flush, Fate.ACKNOWLEDGED)
    _write(history)
    assert history.durable().tolist() == [number == covered for number in range(1, 5)]


def test_a_failed_flush_covers_nothing() -> None:
    history = _history()
    _write(history)
    history.end(history.begin(Kind.FLUSH, 0, 0), Fate.FAILED)
    assert not history.durable().any()


def test_a_flush_after_a_power_cut_does_not_cover_what_was_before_it() -> None:
    history = _history()
    _write(history)
    history.mark(MarkKind.POWER_CUT)
    history.end(history.begin(Kind.FLUSH, 0, 0), Fate.ACKNOWLEDGED)
    assert not history.durable().any()


def test_a_write_with_fua_is_durable_by_itself() -> None:
    history = _history()
    _write(history, Kind.WRITE_FUA, Fate.DURABLE)
    assert history.durable().all()


def test_redirection_stays_in_force_after_a_power_cut() -> None:
    history = _history()
    _write(history)
    history.mark(MarkKind.REDIRECT)
    history.mark(MarkKind.POWER_CUT)
    assert history.redirected_at == 3


def test_redirection_is_over_after_a_commit_or_discard() -> None:
    for kind in (MarkKind.COMMIT, MarkKind.DISCARD):
        history = _history()
        history.mark(MarkKind.REDIRECT)
        history.mark(kind)
        assert history.redirected_at is None


def test_the_last_operations_on_a_block_leave_out_others_and_unanswered_reads() -> None:
    history = _history()
    numbers = [_write(history) for _ in range(4)]
    history.begin(Kind.READ, 8, 4)
    history.end(history.begin(Kind.WRITE, 12, 1), Fate.ACKNOWLEDGED)
    history.end(history.begin(Kind.FLUSH, 0, 0), Fate.ACKNOWLEDGED)
    assert [op.number for op in history.touching(11, 3)] == numbers[1:]


def _eventful() -> History:
    history = _history()
    _write(history)
    history.mark(MarkKind.REDIRECT)
    _write(history, Kind.UNMAP, Fate.FAILED)
    read = history.begin(Kind.READ, 8, 4)
    _write(history, Kind.ZERO)
    history.end(read, Fate.ACKNOWLEDGED, [1, 0, -1, 1])
    history.note(read, 10, "garbage: no header")
    _write(history, Kind.WRITE_FUA, Fate.DURABLE)
    history.mark(MarkKind.POWER_CUT)
    history.begin(Kind.FLUSH, 0, 0)
    return history


def test_a_file_gives_the_same_history_back() -> None:
    history, stream = _eventful(), io.BytesIO()
    dump_history(history, stream)
    again = load_history(io.BytesIO(stream.getvalue()), "history.ndjson")
    assert [again.operation(n + 1) for n in range(len(again))] == [history.operation(n + 1) for n in range(len(history))]
    assert (again.volume, again.seed, again.block_bytes, again.writer) == (1, 42, 4096, 2)
    assert again.marks == [Mark(3, MarkKind.REDIRECT), Mark(12, MarkKind.POWER_CUT)]
    assert again.strange == {(3, 10): "garbage: no header"}
    second = io.BytesIO()
    dump_history(again, second)
    assert second.getvalue() == stream.getvalue()
    assert again.begin(Kind.READ, 0, 1) == history.begin(Kind.READ, 0, 1)
    assert again.operation(7).began == history.operation(7).began


_LINE = b'{"line":"operation","op":9,"kind":"write","lba":0,"blocks":4,"began":8,"ended":10,"fate":"failed"}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "Input data was truncated"),
        (_LINE, "operation 9 does not follow 1"),
        (_LINE.replace(b":9", b":2").replace(b"write", b"wipe"), "'WIPE'"),
        (_LINE.replace(b":9", b":2").replace(b"write", b"read")[:-1] + b',"seen":[1]}', "operation 2 saw 1 of 4 blocks"),
    ],
)
def test_a_bad_line_is_named(line: bytes, reason: str) -> None:
    history, stream = _history(), io.BytesIO()
    _write(history)
    dump_history(history, stream)
    with pytest.raises(UsageError) as caught:
        load_history([*stream.getvalue().splitlines(), line], "history.ndjson")
    assert str(caught.value).startswith("history.ndjson:3: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize("lines", [[], [b'{"line":"mark","moment":1,"kind":"redirect"}']])
def test_a_file_must_begin_with_what_it_is_of(lines: list[bytes]) -> None:
    with pytest.raises(UsageError):
        load_history(lines, "history.ndjson")
