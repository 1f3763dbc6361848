from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hwvirt.controller.journal import Journal, Record, StateDirectory
from hwvirt.errors import StateError


def stored(directory: Path) -> list[tuple[int, bytes]]:
    journal = Journal(directory, "j")
    records = [(record.kind, bytes(record.payload)) for record in journal.recover()]
    journal.close()
    return records


def journal_of(directory: Path, *payloads: bytes) -> Journal:
    journal = Journal(directory, "j")
    list(journal.recover())
    for payload in payloads:
        journal.append([Record(1, payload)])
    journal.sync()
    return journal


def test_records_come_back_in_order(tmp_path: Path) -> None:
    journal_of(tmp_path, b"one", b"", b"three" * 1000).close()
    assert stored(tmp_path) == [(1, b"one"), (1, b""), (1, b"three" * 1000)]


def test_a_torn_tail_is_cut_at_every_length(tmp_path: Path) -> None:
    journal_of(tmp_path, b"first record", b"second record").close()
    whole = (tmp_path / "j.journal").read_bytes()
    start_of_second = len(whole) - 24 - len(b"second record")
    for size in range(start_of_second, len(whole)):
        (tmp_path / "j.journal").write_bytes(whole[:size])
        assert stored(tmp_path) == [(1, b"first record")]
        assert (tmp_path / "j.journal").stat().st_size == start_of_second


def test_writing_goes_on_behind_a_cut_tail(tmp_path: Path) -> None:
    journal_of(tmp_path, b"first", b"second").close()
    path = tmp_path / "j.journal"
    path.write_bytes(path.read_bytes()[:-3])
    journal_of(tmp_path, b"third").close()
    assert stored(tmp_path) == [(1, b"first"), (1, b"third")]


def test_a_bad_record_in_the_middle_is_an_error_with_its_offset(tmp_path: Path) -> None:
    journal_of(tmp_path, b"first record", b"second record", b"third").close()
    path = tmp_path / "j.journal"
    data = bytearray(path.read_bytes())
    for offset in range(8, 8 + 24 + len(b"first record")):
        damaged = bytearray(data)
        damaged[offset] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(StateError) as caught:
            stored(tmp_path)
        assert str(caught.value) == (
            f"{path}: bad record at offset 8. Restore the state directory, or remove it to rebuild the map from the "
            "other controller's ledger."
        )
        assert path.read_bytes() == damaged


def test_a_checkpoint_replaces_what_was_before_and_the_journal_goes_on(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, b"old", b"older")
    journal.checkpoint([Record(2, b"all of it")])
    journal.append([Record(1, b"new")])
    journal.close()
    assert stored(tmp_path) == [(2, b"all of it"), (1, b"new")]


@pytest.mark.parametrize("records", [[], [Record(2, b"all of it")]])
def test_a_crash_between_checkpoint_and_cut_of_the_journal_replays_nothing_twice(
    tmp_path: Path, records: list[Record]
) -> None:
    journal = journal_of(tmp_path, b"old")
    before = (tmp_path / "j.journal").read_bytes()
    journal.checkpoint(records)
    journal.close()
    (tmp_path / "j.journal").write_bytes(before)
    assert stored(tmp_path) == [(record.kind, bytes(record.payload)) for record in records]


def test_a_foreign_file_and_another_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "j.journal"
    path.write_bytes(b"something else entirely")
    with pytest.raises(StateError, match="not a hwvirt state file"):
        stored(tmp_path)
    path.write_bytes(b"HWVJ\x63\x00\x00\x00")
    with pytest.raises(StateError) as caught:
        stored(tmp_path)
    assert str(caught.value) == (
        f"{path}: state format 99, this program knows format 1. Use the hwvirt version that wrote it."
    )


def test_a_state_directory_has_one_owner(tmp_path: Path) -> None:
    owner = StateDirectory(tmp_path / "state")
    with pytest.raises(StateError) as caught:
        StateDirectory(tmp_path / "state")
    assert str(caught.value) == (
        f"state directory {tmp_path / 'state'} is in use by process {os.getpid()}. "
        "Stop that controller, or give this one another state directory."
    )
    owner.close()
    StateDirectory(tmp_path / "state").close()


@pytest.mark.parametrize("checkpoint", [False, True], ids=["records", "checkpoint"])
def test_what_is_appended_after_a_restart_is_newer_than_all_before(tmp_path: Path, checkpoint: bool) -> None:
    """Else a checkpoint, of this start or of the next, would hide what was acknowledged."""
    journal = journal_of(tmp_path, b"one", b"two", b"three")
    if checkpoint:
        journal.checkpoint([Record(1, b"all three")])
    journal.close()
    journal_of(tmp_path, b"four").close()
    expected = [(1, b"all three")] if checkpoint else [(1, b"one"), (1, b"two"), (1, b"three")]
    assert stored(tmp_path) == [*expected, (1, b"four")]
    journal = journal_of(tmp_path)
    before = (tmp_path / "j.journal").read_bytes()
    journal.checkpoint([Record(1, b"all four")])
    journal.close()
    (tmp_path / "j.journal").write_bytes(before)  # a crash before the journal was cut
    assert stored(tmp_path) == [(1, b"all four")]


def test_short_journal_over_a_long_one_leaves_nothing_of_it(tmp_path: Path) -> None:
    journal = journal_of(tmp_path, b"a long record" * 100, b"another one" * 100)
    journal.checkpoint([Record(1, b"both")])
    journal.append([Record(1, b"x")])
    journal.sync()
    journal.close()
    assert stored(tmp_path) == [(1, b"both"), (1, b"x")]
    assert (tmp_path / "j.journal").stat().st_size < 100


def test_what_a_killed_process_left_is_durable_before_it_is_acted_upon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had written records, and a checkpoint's name, and died before it could sync them."""
    journal = journal_of(tmp_path, b"one")
    journal.append([Record(1, b"two")])
    journal.close()
    synced: list[str] = []
    monkeypatch.setattr(os, "fsync", lambda file: synced.append(os.readlink(f"/proc/self/fd/{file}")))
    assert stored(tmp_path) == [(1, b"one"), (1, b"two")]
    assert synced == [str(tmp_path / "j.journal"), str(tmp_path)]


def test_bad_record_that_was_written_whole_is_no_torn_tail(tmp_path: Path) -> None:
    """A checkpoint that is made of the files must not leave out what was acknowledged."""
    journal = journal_of(tmp_path, b"one", b"two")
    path, size = tmp_path / "j.journal", journal.size_bytes
    path.write_bytes(path.read_bytes() + b"what a full file system took of a record")
    assert [bytes(record.payload) for record in journal.stored()] == [b"one", b"two"]
    assert journal.size_bytes == size
    path.write_bytes(path.read_bytes()[: size - 1] + b"!")
    with pytest.raises(StateError, match=r"j\.journal: bad record at offset 35\. Restore the state directory"):
        list(journal.stored())
    journal.close()


def test_what_a_failed_sync_has_lost_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Linux does it: the error is told once, and the pages are clean again, whatever is on the disk."""
    journal = journal_of(tmp_path, b"first")
    size = journal.size_bytes
    sync = os.fdatasync

    def lose(descriptor: int) -> None:
        os.pwrite(descriptor, bytes(journal.size_bytes - size), size)
        raise OSError(errno.EIO, "Input/output error")

    journal.append([Record(1, b"second")])
    monkeypatch.setattr(os, "fdatasync", lose)
    for _ in range(2):
        with pytest.raises(OSError, match="Input/output error"):
            journal.sync()
    journal.append([Record(1, b"third"), Record(1, b"fourth")])
    monkeypatch.setattr(os, "fdatasync", sync)
    journal.sync()
    journal.close()
    assert stored(tmp_path) == [(1, b"first"), (1, b"second"), (1, b"third"), (1, b"fourth")]
