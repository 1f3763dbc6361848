"""A rig file becomes typed, frozen values with every name resolved."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from hwvirt.disk.faulty import Moment, Rule
from hwvirt.link.config import TlsFiles
from hwvirt.link.faults import FaultKind, LinkFault
from hwvirt.rig.file import load_rig, parse_rig
from hwvirt.rig.file.model import (
    Backing,
    Ethernet,
    Forward,
    Frozen,
    HostPath,
    LoopNode,
    LoopSpec,
    Own,
    Redirect,
    Rig,
    ScsiDebugSpec,
    Serial,
    SgSpec,
    TcmLoopSpec,
    TcmuSpec,
    TlsSpec,
)
from hwvirt.rig.file.scenario import (
    AfterCount,
    AtShare,
    Backup,
    BlockRange,
    Commit,
    Counter,
    Crash,
    Discard,
    Expectation,
    Fault,
    Fill,
    Flush,
    Judge,
    Mix,
    Relation,
    Restart,
    StartRedirect,
    Step,
    StrikeLink,
    Workload,
)
from hwvirt.rig.judge.verdict import Property
from hwvirt.scsi.sense import RESET_OCCURRED, UNRECOVERED_READ_ERROR, WRITE_ERROR, Sense
from hwvirt.scsi.status import SenseKey, Status
from hwvirt.scsi.volume import Extent

RIGS = Path(__file__).parents[3] / "rigs"

HEAD = """\
rig: values
disks: {first: {loop: {size: 4MiB}}, second: {loop: {size: 8MiB, block: 4096B, node: loop}}}
controllers:
  b: {disk: second, luns: {0: own}}
  a: {disk: first, luns: {2: {forward: b/0}, 0: redirect, 1: {frozen: 0}}}
"""
STORY = "scenarios: [{name: 1:30, steps: [judge: all]}]"


def parse(text: str) -> Rig:
    return parse_rig(text, Path("rig.yaml"))


def steps(*lines: str) -> tuple[Step, ...]:
    listed = "".join(f"      - {line}\n" for line in lines)
    return parse(f"{HEAD}scenarios:\n  - name: x\n    steps:\n{listed}").scenarios[0].steps


def disk(text: str) -> object:
    return parse(f"rig: d\ndisks: {{d: {text}}}\ncontrollers: {{a: {{disk: d}}}}\n{STORY}").disks["d"]


@pytest.mark.parametrize("path", sorted(RIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_rig_of_the_project_loads_under_its_own_name(path: Path) -> None:
    rig = load_rig(path)
    assert rig.name == path.stem
    assert all(scenario.expect for scenario in rig.scenarios), "a rig of ours says what must have happened"


def test_there_are_rigs() -> None:
    assert {"quickstart", "own", "forward", "frozen-backup"} <= {path.stem for path in RIGS.glob("*.yaml")}


def test_what_is_left_out_has_a_default() -> None:
    rig = parse(HEAD + STORY)
    assert rig.seed == 1
    assert rig.link == Ethernet(stall_s=30.0)
    assert rig.host.path is HostPath.NBD
    assert rig.expect == ()
    assert rig.disks["first"] == LoopSpec(4 << 20, 4096, LoopNode.FILE)
    assert rig.disks["second"] == LoopSpec(8 << 20, 4096, LoopNode.LOOP)


def test_luns_know_whom_they_lead_to() -> None:
    rig = parse(HEAD + STORY)
    assert list(rig.controllers["a"].luns.items()) == [(0, Redirect(to="b")), (1, Frozen(of=0)), (2, Forward("b", 0))]
    assert rig.controllers["b"].luns == {0: Own()}
    assert rig.controllers["b"].store is not None
    assert rig.controllers["a"].store is None
    assert rig.resolve("a", 2) == ("b", 0)
    assert rig.extent("a", 1) == rig.extent("a", 0) == Extent(0, 1024)
    assert rig.extent("a", 2) == rig.extent("b", 0) == Extent(0, 512)
    assert rig.block_bytes("a", 2) == 4096


def test_every_kind_of_disk_is_typed() -> None:
    assert disk("{loop: {size: 1MiB, block: 512B}}") == LoopSpec(1 << 20, 512)
    assert disk("{scsi-debug: {size: 1MiB, block: 512B}}") == ScsiDebugSpec(1 << 20, 512)
    assert disk("{tcm-loop: {size: 1MiB, backing: file}}") == TcmLoopSpec(1 << 20, 4096, Backing.FILE)
    assert disk("{tcmu: {size: 1MiB}}") == TcmuSpec(1 << 20, 4096)
    assert disk("{sg: {wwn: naa.5, serial: 0815, size: 1MiB, block: 512B, window: {lba: 8, blocks: 16}}}") == SgSpec(
        "naa.5", "0815", 1 << 20, 512, Extent(8, 16)
    )


def test_faults_of_a_disk_are_rules_of_its_device_server() -> None:
    spec = disk(
        "{tcmu: {size: 1MiB, block: 512B, faults: [{on: read, lba: 100..107, answer: medium-error, times: 3},"
        " {on: write, lba: 9, answer: medium-error},"
        " {on: flush, answer: silence, after: 2}, {on: write, answer: recovered}]}}"
    )
    assert isinstance(spec, TcmuSpec)
    reads, writes, flushes, recovered = spec.faults
    assert (reads.answer, reads.extent, reads.times) == (UNRECOVERED_READ_ERROR, Extent(100, 8), 3)
    assert (writes.answer, writes.extent, writes.times) == (WRITE_ERROR, Extent(9, 1), 1)
    assert (type(flushes.answer), flushes.nth) == (str, 3)
    assert recovered.moment is Moment.AFTERWARDS
    found = [{0x88, 0x8A, 0x91} & rule.opcodes for rule in spec.faults]
    assert found == [{0x88}, {0x8A}, {0x91}, {0x8A}]


def fault(text: str) -> Rule:
    spec = disk(f"{{tcmu: {{size: 1MiB, faults: [{{{text}}}]}}}}")
    assert isinstance(spec, TcmuSpec)
    (rule,) = spec.faults
    return rule


@pytest.mark.parametrize(
    ("on", "opcodes"),
    [
        ("0x9e", {0x9E}),
        ("0x1", {0x01}),
        ("[0x00, 0xC1]", {0x00, 0xC1}),
        ("[flush, 0x12, flush]", {0x35, 0x91, 0x12}),
        ("[read]", {0x08, 0x28, 0xA8, 0x88}),
    ],
)
def test_fault_of_a_disk_may_name_its_commands_by_operation_code(on: str, opcodes: set[int]) -> None:
    assert fault(f"on: {on}, answer: busy").opcodes == opcodes


@pytest.mark.parametrize("status", [*{*Status} - {Status.CHECK_CONDITION}], ids=lambda status: status.name)
def test_fault_of_a_disk_answers_any_status_by_its_name(status: Status) -> None:
    rule = fault(f"on: any, answer: {status.name.lower().replace('_', '-')}")
    assert (rule.answer, rule.moment) == (status, Moment.INSTEAD)


@pytest.mark.parametrize("key", list(SenseKey), ids=lambda key: key.name)
def test_fault_of_a_disk_answers_any_sense(key: SenseKey) -> None:
    rule = fault(f"on: read, sense: {key:X}/2a/F1, lba: 7")
    assert (rule.answer, rule.extent) == (Sense(key, 0x2A, 0xF1), Extent(7, 1))
    done = key is SenseKey.RECOVERED_ERROR
    assert rule.moment is (Moment.AFTERWARDS if done else Moment.INSTEAD)


def test_fault_of_a_disk_may_be_a_delay_alone_or_with_an_answer() -> None:
    assert fault("on: flush, delay: 200ms") == Rule(None, frozenset({0x35, 0x91}), delay_s=0.2)
    slow = fault("on: 0x12, delay: 1h, sense: 6/29/00, after: 3, times: 2")
    assert slow == Rule(RESET_OCCURRED, frozenset({0x12}), None, 4, 2, 3600.0)
    assert fault("on: flush, delay: 2s, answer: silence").delay_s == 2.0


@pytest.mark.parametrize(
    ("on", "sense"),
    [
        ("[read, 0x8f]", UNRECOVERED_READ_ERROR),
        ("0x8f", UNRECOVERED_READ_ERROR),
        ("[read, write]", WRITE_ERROR),
        ("0x42", WRITE_ERROR),
        ("[read, 0x91]", WRITE_ERROR),
        ("any", WRITE_ERROR),
    ],
)
def test_medium_error_is_one_of_writing_where_one_of_the_commands_writes(on: str, sense: Sense) -> None:
    assert fault(f"on: {on}, answer: medium-error").answer == sense


def test_volumes_of_a_real_disk_lie_in_its_window() -> None:
    rig = parse(
        "rig: d\ndisks: {d: {sg: {wwn: naa.5, size: 1MiB, block: 512B, window: {lba: 8, blocks: 16}}}}\n"
        "controllers: {a: {disk: d, luns: {0: {own: {size: 4KiB}}, 1: own}}}\n" + STORY
    )
    assert rig.layout["a"].luns == {0: Extent(8, 8), 1: Extent(16, 8)}


def test_link_and_host_are_typed() -> None:
    text = f"{HEAD}link: {{serial: {{baud: 921600, stall: 1500ms}}}}\nhost: {{path: nbd}}\nseed: 7\n"
    rig = parse(f"{text}expect: {{failed: '<= 3'}}\n{STORY}")
    assert rig.link == Serial(921600, 1.5)
    assert rig.host.path is HostPath.NBD
    assert rig.seed == 7
    assert rig.expect == (Expectation(Counter.FAILED, Relation.AT_MOST, 3),)


def test_tls_is_made_by_the_run_or_lies_beside_the_rig_file() -> None:
    assert parse(f"{HEAD}link: {{ethernet: {{tls: generated}}}}\n{STORY}").link == Ethernet(30.0, (), TlsSpec({}))
    given = "{a: {authority: ca.pem, certificate: a.pem, key: /keys/a}, b: {authority: ca.pem, certificate: b, key: c}}"
    text = f"{HEAD}link: {{ethernet: {{tls: {{files: {given}}}}}}}\n{STORY}"
    link = parse_rig(text, Path("desk/rig.yaml")).link
    assert isinstance(link, Ethernet)
    assert link.tls == TlsSpec(
        {
            "a": TlsFiles(Path("desk/ca.pem"), Path("desk/a.pem"), Path("/keys/a")),
            "b": TlsFiles(Path("desk/ca.pem"), Path("desk/b"), Path("desk/c")),
        }
    )


def test_a_bare_word_is_a_kind_with_all_its_defaults() -> None:
    assert parse(f"{HEAD}link: ethernet\n{STORY}").link == Ethernet(30.0)
    assert parse(f"{HEAD}link: {{ethernet: }}\n{STORY}").link == Ethernet(30.0)


def test_plain_steps_become_values() -> None:
    assert steps(
        "fill: {lun: 0}", "redirect: {lun: 0}", "commit: {lun: a/0}", "discard: {lun: 0}", "flush: {lun: b/0}",
        "backup: {lun: 1}", "restart: b", "crash: a", "judge: all", "judge: [exact, frozen]", "judge: settled",
    ) == (
        Fill("a", 0), StartRedirect("a", 0), Commit("a", 0), Discard("a", 0), Flush("b", 0),
        Backup("a", 1), Restart("b"), Crash("a"),
        Judge(None), Judge((Property.EXACT, Property.FROZEN)), Judge((Property.SETTLED,)),
    )  # fmt: skip


def test_a_workload_carries_its_faults_and_its_backup() -> None:
    (workload,) = steps(
        "{workload: {lun: 0, ops: 20_000, depth: 32, blocks: 1..64, mix: {write: 60, read: 30, flush: 5, unmap: 5}},"
        " faults: [{at: 30%, link: cut, for: 3s}, {after: {acknowledged: 5000}, crash: b},"
        " {after: {flushes: 9}, restart: a}], while: {backup: {lun: 1}}}"
    )
    assert workload == Workload(
        controller="a",
        lun=0,
        ops=20000,
        depth=32,
        blocks=BlockRange(1, 64),
        mix=Mix(write=60, read=30, flush=5, unmap=5),
        faults=(
            Fault(AtShare(30), StrikeLink(LinkFault(FaultKind.CUT, for_s=3.0))),
            Fault(AfterCount(Counter.ACKNOWLEDGED, 5000), Crash("b")),
            Fault(AfterCount(Counter.FLUSHES, 9), Restart("a")),
        ),
        alongside=Backup("a", 1),
    )


def test_a_workload_is_one_block_at_a_time_unless_it_says_otherwise() -> None:
    assert steps("workload: {lun: 1, ops: 5, mix: {read: 100}}") == (
        Workload("a", 1, ops=5, depth=1, blocks=BlockRange(1, 1), mix=Mix(read=100)),
    )
    (workload,) = steps("workload: {lun: 2, ops: 5, blocks: 8, mix: {write: 100}}")
    assert isinstance(workload, Workload)
    assert workload.blocks == BlockRange(8, 8)


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ('">= 5"', {4: False, 5: True, 6: True}),
        ('"<=5"', {5: True, 6: False}),
        ('"> 5"', {5: False, 6: True}),
        ('"< 5"', {4: True, 5: False}),
        ('"== 5"', {4: False, 5: True}),
        ("5", {4: False, 5: True}),
        ('"0"', {0: True, 1: False}),
    ],
)
def test_expectation_holds_for_these_counts(text: str, counts: dict[int, bool]) -> None:
    rig = parse(f"{HEAD}expect: {{reads: {text}}}\n{STORY}")
    (expectation,) = rig.expect
    assert {count: expectation.holds(count) for count in counts} == counts


def test_expectation_reads_like_the_rig_file() -> None:
    assert Expectation(Counter.IN_DOUBT, Relation.EQUAL, 0).text == "in_doubt == 0"


def test_words_of_yaml_stay_words() -> None:
    rig = parse(f"rig: no\ndisks: {{on: {{loop: {{size: 1MiB}}}}}}\ncontrollers: {{yes: {{disk: on}}}}\n{STORY}")
    assert (rig.name, list(rig.disks), list(rig.controllers), rig.scenarios[0].name) == ("no", ["on"], ["yes"], "1:30")


def test_nobody_changes_a_rig() -> None:
    rig = parse(HEAD + STORY)
    with pytest.raises(FrozenInstanceError):
        rig.seed = 2  # type: ignore[misc]  # that is the claim
    for mapping in (rig.disks, rig.controllers, rig.layout, rig.controllers["a"].luns, rig.layout["a"].luns):
        with pytest.raises(TypeError):
            mapping["a"] = None  # type: ignore[index]  # that is the claim
