"""A running rig, asked and steered as a user would: `hwvirt ctl` and `hwvirt watch`."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from .by_hand import Desk
from .kit import END_S, PROGRAM, RigUp, fio, good, hwvirt, qemu_io, started

MIB = 1 << 20
RAW = ("-f", "raw", "-F", "raw")


def compare(one: str | Path, other: str | Path) -> None:
    good("qemu-img", "compare", *RAW, one, other)


def test_status_tells_of_link_luns_store_and_disk(redirecting: RigUp) -> None:
    qemu_io(redirecting.uri("a", 0), "write -P 9 0 64k", "flush")
    a, b = redirecting.ctl("a", "status"), redirecting.ctl("b", "status")
    assert (a["controller"], a["ready"], a["link"]["state"], a["link"]["peer"], a["store"]) == ("a", True, "up", "b", None)
    assert [(lun["lun"], lun["mode"], lun["state"]) for lun in a["luns"]] == [
        (0, "redirect", "redirecting"),
        (1, "frozen", ""),
        (2, "forward", ""),
    ]
    assert (a["luns"][0]["mapped_blocks"], a["luns"][0]["unflushed_bytes"]) == (16, 0)
    assert a["luns"][2]["target"] == "b/0"
    assert {key: b["store"][key] for key in ("blocks", "free", "live", "freed")} == {
        "blocks": 24576,
        "free": 24560,
        "live": 16,
        "freed": 0,
    }
    assert b["disk"]["blocks"] * b["disk"]["block_bytes"] == 128 * MIB


def test_map_and_ledger_tell_the_same_pairs(redirecting: RigUp) -> None:
    uri = redirecting.uri("a", 0)
    qemu_io(uri, "write -P 1 1M 64k", "write -P 2 1028k 4k", "write -P 3 8M 8k", "discard 9M 4k", "flush")
    told = redirecting.ctl("a", "map", "lun=0")
    assert (told["state"], told["next"]) == ("redirecting", None)
    blocks = {
        lba + offset: (position + offset, generation)
        for lba, count, position, generation, _ in told["rows"]
        for offset in range(count)
        if position is not None
    }
    assert sorted(blocks) == [*range(256, 272), 2048, 2049]
    assert [row[:3] for row in told["rows"] if row[2] is None] == [[2304, 1, None]]
    ledger = redirecting.ctl("b", "ledger")["rows"]
    live = {lba: (position, generation) for position, generation, _, lba, _, _, kind in ledger if kind == 1}
    assert live == blocks


def test_pages_of_the_map_are_the_map(redirecting: RigUp) -> None:
    qemu_io(redirecting.uri("a", 0), *(f"write -P 1 {number * 8}k 4k" for number in range(20)))
    whole = redirecting.ctl("a", "map")["rows"]
    rows: list[list[int]] = []
    after: int | None = 0
    while after is not None:
        page = redirecting.ctl("a", "map", f"after={after}", "limit=8")
        assert len(page["rows"]) <= 8
        rows += page["rows"]
        after = page["next"]
    assert (len(rows), rows) == (20, whole)


@pytest.mark.parametrize("lun", [0, 1, 2])
def test_flush_is_answered_for_every_lun_and_a_forwarded_one_is_flushed_where_it_is(
    redirecting: RigUp, tmp_path: Path, lun: int
) -> None:
    fio(tmp_path, (f"--uri={redirecting.uri('a', 0)}", "--rw=write", "--bs=64k", "--size=64k"))  # it never flushes
    before = redirecting.status("b")["luns"][0]["counters"]["flushes"]
    assert redirecting.status("a")["luns"][0]["unflushed_bytes"] == 64 << 10
    assert redirecting.ctl("a", "flush", f"lun={lun}") == {}
    assert redirecting.status("a")["luns"][0]["unflushed_bytes"] == (0 if lun == 0 else 64 << 10)
    assert redirecting.status("b")["luns"][0]["counters"]["flushes"] == before + (lun == 2)


def test_after_a_commit_the_first_volume_is_the_merged_image(redirecting: RigUp, tmp_path: Path) -> None:
    live, frozen = redirecting.uri("a", 0), redirecting.uri("a", 1)
    original, merged = tmp_path / "original.img", tmp_path / "merged.img"
    good("nbdcopy", frozen, original)
    qemu_io(live, "write -P 66 3M 1M", "discard 3M 64k", "write -P 67 63M 1M", "write -P 68 0 4k")
    good("nbdcopy", live, merged)
    compare(frozen, original)
    assert redirecting.ctl("a", "commit", "wait=true") == {"state": "own"}
    compare(live, merged)
    compare(frozen, merged)
    assert merged.read_bytes() != original.read_bytes()
    assert redirecting.ctl("a", "map") == {"state": "own", "rows": [], "next": None}
    assert redirecting.status("b")["store"]["live"] == 0
    qemu_io(live, "write -P 69 5M 4k")  # no redirection any more: the first disk itself is written
    compare(live, frozen)


def test_after_a_discard_the_volume_is_the_original(redirecting: RigUp, tmp_path: Path) -> None:
    live, original = redirecting.uri("a", 0), tmp_path / "original.img"
    good("nbdcopy", live, original)
    qemu_io(live, "write -P 70 0 8M", "discard 32M 1M", "flush")
    assert redirecting.ctl("a", "discard") == {"state": "own"}
    compare(live, original)
    assert redirecting.status("b")["store"]["live"] == 0
    assert redirecting.ctl("a", "redirect", "lun=0") == {"state": "redirecting"}
    qemu_io(live, "write -P 71 0 4k", "read -P 71 0 4k")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("redirect", 4, "redirect: cannot redirect while redirecting. Possible now: commit, discard."),
        ("statsu", 2, "statsu: unknown verb. Did you mean 'status'?"),
        ("quit", 2, "quit: unknown verb. Known: commit, discard, events, flush, ledger, map, redirect, status."),
        ("ledger", 2, "ledger: controller a has no store. Ask the controller that stores."),
        ("flush lun=9", 2, "flush: controller a has no LUN 9. Its LUNs: 0, 1, 2."),
        ("map lun=1", 2, "map: LUN 1 of controller a does not redirect. LUNs that do: 0."),
        ("commit lun=x", 2, "commit: lun: must be a whole number, not 'x'. See docs/controller.md for the verbs."),
        ("map lun=-1", 2, "map: lun: must be 0 to 255, not -1. See docs/controller.md for the verbs."),
        ("map limit=0", 2, "map: limit: must be at least 1, not 0. See docs/controller.md for the verbs."),
        ("map after=NaN", 2, "map: after: must be a whole number, not 'NaN'. See docs/controller.md for the verbs."),
        ("flush lun=1e999", 2, "flush: lun: must be a whole number, not '1e999'. See docs/controller.md for the verbs."),
        ("flush lun=\udcff", 2, "'lun=\\udcff' is not UTF-8: JSON cannot carry it. Write it in UTF-8."),
        (
            f"flush lun={'x' * 65536}",
            2,
            "that is a question of 65561 bytes, and a controller reads 65536. Give it shorter arguments.",
        ),
        ("commit wait=yes", 2, "commit: wait: must be true or false, not 'yes'. See docs/controller.md for the verbs."),
        ("map lunn=0", 2, "map: unknown argument 'lunn'. Did you mean 'lun'?"),
        ("flush zzz=0", 2, "flush: unknown argument 'zzz'. Known: lun."),
        ("status lun=0", 2, "status: unknown argument 'lun'. It takes none."),
        ("events lats=1", 2, "events: unknown argument 'lats'. Did you mean 'last'?"),
        ("events last=all", 2, "events: last: must be a whole number, not 'all'. See docs/controller.md for the verbs."),
        ("flush 0", 2, "'0' is no argument; write it like lun=0"),
        ("map lun=0 lun=1", 2, "'lun' is given twice. Give it once."),
        ("map verb=status", 2, "'verb=status' is no argument: the verb stands before them."),
    ],
    ids=lambda value: value[:20].encode("ascii", "replace").decode() if isinstance(value, str) else "",
)
def test_wrong_question_is_answered_with_what_would_be_right(redirecting: RigUp, words: str, code: int, said: str) -> None:
    ended = hwvirt("ctl", redirecting.socket("a"), *words.split())
    assert (ended.code, ended.out, ended.err) == (code, "", f"hwvirt: {said}\n")


def test_events_come_as_lines_of_json_until_ctrl_c(quickstart: RigUp) -> None:
    with started(*PROGRAM, "ctl", quickstart.socket("a"), "events", "last=1000") as events:
        assert events.stdout is not None
        assert events.stderr is not None
        told = json.loads(events.stdout.readline())  # a pipe, and each line comes as soon as it is told
        assert (set(told), told["source"]) == ({"name", "at", "source", "fields"}, "a")
        good("nbdinfo", quickstart.uri("a", 0))
        while told["name"] != "nbd.opened":
            told = json.loads(events.stdout.readline())
        events.send_signal(signal.SIGINT)
        assert (events.wait(END_S), events.stderr.read()) == (0, "")


def test_events_end_with_who_reads_them_also_in_silence(quickstart: RigUp) -> None:
    with started(*PROGRAM, "ctl", quickstart.socket("b"), "events", "last=1") as events:
        assert events.stdout is not None
        assert events.stderr is not None
        json.loads(events.stdout.readline())
        events.stdout.close()  # and nothing happens at b
        assert (events.wait(END_S), events.stderr.read()) == (141, "")


@pytest.mark.parametrize(
    ("number", "code", "said"),
    [
        (signal.SIGTERM, 0, ""),
        (
            signal.SIGKILL,
            4,
            "hwvirt: {socket}: the events ended, and the controller did not say that it stopped. "
            "Its own log tells why it ended.\n",
        ),
    ],
    ids=["stopped", "killed"],
)
def test_events_end_with_the_controller(tmp_path: Path, number: int, code: int, said: str) -> None:
    config, socket = Desk(tmp_path).own(), tmp_path / "a.sock"
    with started(*PROGRAM, "controller", config) as controller:
        assert controller.stderr is not None
        while "controller.started" not in controller.stderr.readline():
            pass
        with started(*PROGRAM, "ctl", socket, "events", "last=1") as events:
            assert events.stdout is not None
            assert events.stderr is not None
            assert json.loads(events.stdout.readline())["name"] == "controller.started"
            controller.send_signal(number)
            told = [json.loads(line)["name"] for line in events.stdout]
            assert told[-1:] == ([] if code else ["controller.stopped"])
            assert (events.wait(END_S), events.stderr.read()) == (code, said.format(socket=socket))


def test_watch_prints_plain_lines_where_nobody_has_a_terminal(quickstart: RigUp) -> None:
    with started(*PROGRAM, "watch", quickstart.socket("a")) as watch:
        assert watch.stdout is not None
        assert watch.stderr is not None
        lines = [watch.stdout.readline()]
        while "IOPS" not in lines[-1]:  # what has just happened may come first
            lines.append(watch.stdout.readline())
            assert lines[-1], lines
        lines = [status := lines[-1]]
        qemu_io(quickstart.uri("a", 0), "write -P 1 0 4k")
        while not any("opened lun0" in line for line in lines):
            lines.append(watch.stdout.readline())
            assert lines[-1], lines
        watch.send_signal(signal.SIGINT)
        assert (watch.wait(10), watch.stderr.read()) == (0, "")
    assert re.fullmatch(
        r" +\d+\.\ds  a        link up  IOPS -  MB/s -  mapped [\d,]+  unflushed .*  errors 0  "
        r"lun 0 (own|redirecting)  lun 1 frozen  lun 2 forward\n",
        status,
    )
    assert all(re.match(r" +\d+\.\ds  a  ", line) and "\x1b" not in line for line in lines)


def test_ctl_prints_json_and_nothing_else(quickstart: RigUp) -> None:
    ended = hwvirt("ctl", quickstart.socket("b"), "status")
    assert (ended.code, ended.err) == (0, "")
    assert json.loads(ended.out)["controller"] == "b"
