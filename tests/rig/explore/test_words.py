"""Schedules are told in words that a person can follow."""

from __future__ import annotations

from hwvirt.rig.explore.actions import Act, Action
from hwvirt.rig.explore.memory import Loss
from hwvirt.rig.explore.process import Side
from hwvirt.rig.explore.scenario import SCENARIOS
from hwvirt.rig.explore.words import told
from hwvirt.rig.explore.world import World

TO_A, TO_B = Action(Act.ARRIVE, Side.A), Action(Act.ARRIVE, Side.B)


def words(name: str, *schedule: Action) -> list[str]:
    world = World(SCENARIOS[name])
    try:
        return told(world, world.beginning(), schedule)
    finally:
        world.close()


def test_requests_and_their_answers() -> None:
    ask = Action(Act.ASK)
    assert words("epoch-change", ask, TO_B, TO_A, ask, TO_B, TO_A, ask, TO_B, TO_A) == [
        "the host asks: READ of block 0",
        "B receives READ of position 1 of generation 1",
        "A receives READ_DATA with 1 blocks",
        "the host asks: WRITE of block 0",
        "B receives WRITE of block 0 with sequence 4",
        "A receives WRITTEN at position 3 of generation 1",
        "the host asks: FLUSH",
        "B receives FLUSH",
        "A receives FLUSHED in epoch 30101",
    ]


def test_what_a_cable_does_to_frames() -> None:
    ask, older = Action(Act.ASK), Action(Act.ARRIVE, Side.B, 0)
    assert words("write-path", ask, ask, Action(Act.REORDER, Side.B))[2:] == [
        "B receives WRITE of block 1 with sequence 2 before WRITE of block 0 with sequence 1"
    ]
    assert words("write-path", ask, Action(Act.DOUBLE, Side.B), Action(Act.DROP, Side.B))[1:] == [
        "B receives WRITE of block 0 with sequence 1, which will arrive once more",
        "WRITE of block 0 with sequence 1 to B is lost",
    ]
    assert words("handshake", ask, Action(Act.HALF, Side.A), Action(Act.CONNECT), older) == [
        "the host asks: WRITE of block 0",
        "A finds the connection broken, the other side does not",
        "A connects",
        "B receives WRITE of block 0 with sequence 1 on an older connection",
    ]


def test_ends_and_crashes() -> None:
    cut, crash = Action(Act.CUT), Action(Act.CRASH, Side.B, 0, Loss.NOTHING)
    ask = Action(Act.ASK)
    assert words("write-path", ask, cut, Action(Act.STALL), Action(Act.CONNECT), Action(Act.SILENCE), crash) == [
        "the host asks: WRITE of block 0",
        "the connection breaks, both sides see it at once, and what was under way is lost",
        "the stall passes",
        "A connects",
        "nothing arrives any more, until both sides give the connection up",
        "B crashes and starts again, the process alone: disk and files keep everything",
    ]


def test_operator_and_slow_jobs() -> None:
    ask = Action(Act.ASK)
    assert words("commit", ask)[0] == "the host asks: commit"
    assert words("slow", ask, TO_B, Action(Act.FINISH, Side.B)) == [
        "the host asks: WRITE of block 0",
        "B receives WRITE of block 0 with sequence 2",
        "a write of the disk ends at B",
    ]
