"""What a rig can tell: several volumes and scenarios, a backup alongside, the same operations for the same seed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from hwvirt.disk.reader import read_blocks
from hwvirt.errors import ExitCode
from hwvirt.rig.judge.block import BlockId, identify
from hwvirt.rig.judge.history import Operation
from hwvirt.rig.steps import Performance
from tests.rig.run.kit import (
    BACKUP,
    COMMIT,
    DISCARD,
    FILL,
    JUDGE,
    JUDGE_SETTLED,
    REDIRECT,
    Do,
    rig_of,
    run,
    workload,
)

ALONGSIDE = f"\n        while: {{{BACKUP}}}"
FORWARD = "{0: redirect, 1: frozen, 2: {forward: b/0}}"
ANOTHER = """
  - name: another story
    steps:
"""


def test_backup_alongside_gets_the_original_while_the_host_overwrites_it(tmp_path: Path) -> None:
    ran = run(rig_of(FILL, REDIRECT, workload(1000) + ALONGSIDE, BACKUP, JUDGE), tmp_path)
    assert (ran.code, ran.report["reasons"]) == (ExitCode.PASSED, [])
    beside, alone = [event.fields for event in ran.events if event.name == "backup.read"]  # however often they read
    assert beside == {"lun": "a/1", "passes": beside["passes"], "blocks": 1024 * beside["passes"], "mismatches": 0}
    assert alone == {"lun": "a/1", "passes": 1, "blocks": 1024, "mismatches": 0}
    assert beside["passes"] >= 1
    assert any(event.name == "backup.progress" for event in ran.events)
    assert ran.report["properties"]["frozen"]["checked"] == 1024 * (beside["passes"] + 2)  # the other one, and the judge
    assert ran.report["properties"]["untouched"]["checked"] == 1024


def test_backup_that_gets_other_blocks_says_so_at_once_and_once_a_pass(tmp_path: Path) -> None:
    async def spoil(run: Performance) -> None:
        unit = run.stage.unit("a", 0)
        assert unit.baseline is not None
        for lba in (7, 9, 300):  # what it is held against: the disk is as it was
            unit.baseline.digests[lba] ^= 1

    text = rig_of(FILL, REDIRECT, BACKUP, JUDGE)
    ran = run(text, tmp_path, insert=[(2, Do(spoil))])
    assert ran.code == ExitCode.BROKEN
    told = [(event.name, event.fields) for event in ran.events if event.name in ("backup.mismatch", "backup.read")]
    assert told == [
        ("backup.mismatch", {"lun": "a/1", "lba": 7, "number": 1}),
        ("backup.read", {"lun": "a/1", "passes": 1, "blocks": 1024, "mismatches": 3}),
    ]
    assert {card["lba"] for card in ran.report["cards"] if card["detail"].startswith("a backup")} == {7, 9, 300}


def test_counts_tell_apart_what_was_acknowledged(tmp_path: Path) -> None:
    ran = run(rig_of(FILL, REDIRECT, workload(400, mix="50/20/10/20"), JUDGE), tmp_path)
    counts = ran.report["counts"]
    assert (counts["fills"], counts["failed"], counts["in_doubt"]) == (4, 0, 0)
    assert 0 < counts["unmaps"] < counts["acknowledged"] - counts["fills"]
    assert sum(counts[name] for name in ("acknowledged", "reads", "flushes")) == 400 + 4 + 1  # and the flush of the fill


def test_the_writer_of_a_run_s_blocks_stands_in_its_lock_file(tmp_path: Path) -> None:
    writers: list[int] = []

    async def look(run: Performance) -> None:
        unit = run.stage.unit("a", 0)
        found = identify(read_blocks(run.stage.disk_of("a"), run.stage.window(unit).lba, 1))
        assert isinstance(found, BlockId)
        writers.append(found.writer)

    for _ in range(2):
        ran = run(rig_of(FILL, first="1MiB", second="2MiB"), tmp_path, insert=[(1, Do(look))])
        assert yaml.safe_load((ran.folder / "rig.lock.yaml").read_text())["writer"] == writers[-1]
    assert writers[0] != writers[1]


def test_backup_before_redirection_has_nothing_to_compare_with(tmp_path: Path) -> None:
    ran = run(rig_of(FILL, BACKUP, JUDGE), tmp_path)
    assert (ran.code, ran.reason) == (
        ExitCode.INFRASTRUCTURE,
        "backup of a/1: nothing is redirected, so there is no original to compare with. Put a `redirect` step before it.",
    )


def test_forwarded_lun_is_one_volume_with_two_doors_beside_a_redirected_one(tmp_path: Path) -> None:
    def of(lun: str, mix: str) -> str:
        return workload(300, mix=mix).replace("lun: 0", f"lun: {lun}")

    steps = ["fill: {lun: 2}", of("2", "70/30/0/0"), of("b/0", "0/100/0/0"), of("b/0", "70/30/0/0"), of("2", "0/100/0/0")]
    text = rig_of(FILL, REDIRECT, workload(), *steps, JUDGE, a=FORWARD)
    ran = run(text.replace("b: {disk: second}", "b: {disk: second, luns: {0: {own: {size: 2MiB}}}}"), tmp_path)
    assert (ran.code, ran.report["reasons"], ran.report["counts"]["mismatches"]) == (ExitCode.PASSED, [], 0)
    assert ran.verdicts["consistent"] == "held"
    # Every read is judged, those through the one door against the writes through the other.
    assert ran.report["properties"]["consistent"]["checked"] > 4 * 300


@pytest.mark.parametrize("end", [COMMIT, DISCARD])
def test_second_scenario_finds_what_the_first_left(end: str, tmp_path: Path) -> None:
    first = rig_of(FILL, REDIRECT, workload(), JUDGE, end, JUDGE_SETTLED)
    second = [REDIRECT, workload(), JUDGE, end, JUDGE_SETTLED]
    ran = run(first + ANOTHER + "\n".join(f"      - {step}" for step in second), tmp_path)
    assert (ran.code, ran.report["reasons"]) == (ExitCode.PASSED, [])
    names = [event.fields["name"] for event in ran.events if event.name == "scenario.started"]
    assert names == ["a small story", "another story"]
    assert [step["scenario"] for step in ran.report["steps"]] == ["a small story"] * 6 + ["another story"] * 5
    assert ran.report["properties"]["settled"]["checked"] == 2 * 1024
    assert ran.report["properties"]["untouched"]["checked"] == 2 * 1024


def test_each_scenario_must_do_what_it_expects_itself(tmp_path: Path) -> None:
    enough, together = '{acknowledged: ">= 200"}', 'expect: {acknowledged: ">= 1000"}'
    busy = rig_of(FILL, REDIRECT, workload(), JUDGE, expect=enough)
    ran = run(f"{busy}{ANOTHER}      - {JUDGE}\n    expect: {enough}\n{together}\n", tmp_path)
    done = ran.report["counts"]["acknowledged"]
    assert 200 <= done < 1000
    assert (ran.code, ran.report["reasons"]) == (
        ExitCode.NOTHING_RAN,
        [
            "expected acknowledged >= 200, counted 0 in scenario 'another story'",
            f"expected acknowledged >= 1000, counted {done}",
        ],
    )


def test_same_seed_submits_the_same_operations_and_another_one_others(tmp_path: Path) -> None:
    def submitted(name: str, seed: int | None) -> list[tuple[int, int, int]]:
        async def keep(run: Performance) -> None:
            history = run.stage.unit("a", 0).history
            kept.extend(history.operation(number + 1) for number in range(len(history)))

        kept: list[Operation] = []
        (tmp_path / name).mkdir()
        ran = run(rig_of(FILL, REDIRECT, workload(), JUDGE), tmp_path / name, seed=seed, insert=[(3, Do(keep))])
        assert (ran.code, ran.report["seed"]) == (ExitCode.PASSED, 5 if seed is None else seed)
        return [(operation.kind, operation.lba, operation.blocks) for operation in kept]

    own, again, other = submitted("own", None), submitted("again", 5), submitted("other", 6)
    assert own == again
    assert len(own) == len(other) > 400
    assert own != other


def test_dry_run_tells_what_it_would_do_and_writes_nothing(tmp_path: Path) -> None:
    rig = tmp_path / "rig.yaml"
    rig.write_text(rig_of(FILL, REDIRECT, JUDGE))
    command = [sys.executable, "-m", "hwvirt", "run", "rig.yaml", "--runs", "runs", "--dry-run"]
    terminal, its_end = os.openpty()  # there it is what stays on the screen, and no dashboard
    try:
        done = subprocess.run(command, cwd=tmp_path, stdout=its_end, stderr=its_end, check=False, timeout=60)
        shown = os.read(terminal, 65536).decode()
    finally:
        os.close(terminal)
        os.close(its_end)
    assert done.returncode == 0
    assert shown.splitlines() == [
        "would make disk first: 4MiB",
        "would make disk second: 16MiB",
        "would start controller a on disk first",
        "    LUN 0: redirect to b: blocks 0 to 1023",
        "    LUN 1: frozen, shows LUN 0: blocks 0 to 1023",
        "would start controller b on disk second",
        "    store: blocks 0 to 4095",
        "scenario: a small story",
        "    would fill a/0",
        "    would redirect a/0",
        "    would judge all",
    ]
    assert list(tmp_path.iterdir()) == [rig]
