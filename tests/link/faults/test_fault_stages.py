"""What each fault does to what passes, on a cable that lies in memory, with time as a number."""

from __future__ import annotations

import pytest

from hwvirt.link import messages as m
from hwvirt.link.codec import Kind, decode, encode
from hwvirt.link.faults import FAULTS, Extent, FaultKind, Flow, Frames, Lane, LinkFault, Medium, Runs, Strike
from hwvirt.link.faults.stages import STAGES
from hwvirt.link.wire import read_header, write_frame
from tests.link.link_samples import MESSAGES, write_of

_ALL = tuple(FaultKind)


def _frame(message: m.Message, number: int = 0, epoch: int = 7, tag: int = 0) -> bytes:
    return b"".join(write_frame(epoch, number, tag, encode(message)))


PINGS = [_frame(m.Ping(number), number) for number in range(8)]


def _lane(*faults: LinkFault, seed: str = "1", now: float = 0.0) -> Lane:
    lane = Lane(_ALL, seed)
    for fault in faults:
        lane.add(Strike(fault, now))
    return lane


def _through(frames: list[bytes], *faults: LinkFault, seed: str = "1") -> list[bytes]:
    """What arrives, ever, when all frames are sent at once."""
    flow = Flow(_lane(*faults, seed=seed), Frames())
    for frame in frames:
        flow.send(frame, 0.0)
    return flow.arrived(1e9)


def _times(flow: Flow, until: float) -> list[tuple[float, int]]:
    """When something arrives, and how many bytes."""
    found = []
    while (due := flow.next_due()) <= until:
        found.append((round(due, 6), sum(map(len, flow.arrived(due)))))
    return found


def _counted(kind: FaultKind, count: int = 1, amount: float = 0.0) -> LinkFault:
    return LinkFault(kind, amount, count=count)


def test_every_kind_has_its_stage_in_the_order_of_the_words() -> None:
    assert [stage.kind for stage in STAGES] == list(FaultKind) == list(FAULTS)


def test_a_sound_cable_passes_every_byte_as_it_came() -> None:
    data = b"".join(_frame(message, number) for number, message in enumerate(MESSAGES))
    for step in (1, 7, 48, 1000, len(data)):
        flow = Flow(_lane(), Frames())
        for start in range(0, len(data), step):
            flow.send(data[start : start + step], 0.0)
        assert b"".join(flow.arrived(0.0)) == data


def test_a_frame_is_a_unit_however_its_bytes_come() -> None:
    data = b"".join(PINGS)
    for step in (1, 5, 50, len(data)):
        flow = Flow(_lane(), Frames())
        for start in range(0, len(data), step):
            flow.send(data[start : start + step], 0.0)
        assert flow.arrived(0.0) == PINGS


def test_what_is_no_frame_passes_as_it_comes_from_there_on() -> None:
    flow = Flow(_lane(), Frames())
    flow.send(PINGS[0] + b"GET / HTTP/1.0", 0.0)
    flow.send(PINGS[1], 0.0)
    assert flow.arrived(0.0) == [PINGS[0], b"GET / HTTP/1.0", PINGS[1]]


def test_drop_loses_so_many_frames() -> None:
    assert _through(PINGS, _counted(FaultKind.DROP, 2)) == PINGS[2:]


def test_duplicate_lets_so_many_frames_arrive_twice() -> None:
    assert _through(PINGS, _counted(FaultKind.DUPLICATE, 2)) == [PINGS[0], PINGS[0], PINGS[1], PINGS[1], *PINGS[2:]]


def test_reorder_exchanges_a_frame_with_the_next() -> None:
    zero, one, two, three, *rest = PINGS
    assert _through(PINGS, _counted(FaultKind.REORDER, 1)) == [one, zero, two, three, *rest]
    assert _through(PINGS, _counted(FaultKind.REORDER, 2)) == [one, zero, three, two, *rest]


def test_a_frame_that_waits_to_be_reordered_does_not_come_out_of_the_next_connection() -> None:
    lane = _lane(_counted(FaultKind.REORDER))
    Flow(lane, Frames()).send(PINGS[0], 0.0)
    flow = Flow(lane, Frames())
    flow.send(PINGS[1], 0.0)
    assert flow.arrived(0.0) == [PINGS[1]]


@pytest.mark.parametrize("at_byte", [1, 47, 48, 55])
def test_truncate_ends_the_next_longer_frame_at_that_byte(at_byte: int) -> None:
    assert _through(PINGS, _counted(FaultKind.TRUNCATE, amount=at_byte)) == [PINGS[0][:at_byte], *PINGS[1:]]


def test_truncate_waits_for_a_frame_that_is_long_enough() -> None:
    write = _frame(write_of(bytes(4096)), 1)
    assert _through([PINGS[0], write], _counted(FaultKind.TRUNCATE, amount=100)) == [PINGS[0], write[:100]]


def test_flip_changes_one_bit() -> None:
    arrived = _through(PINGS, _counted(FaultKind.FLIP, 3))
    changed = [int.from_bytes(one) ^ int.from_bytes(other) for one, other in zip(arrived, PINGS, strict=True)]
    assert [bits.bit_count() for bits in changed] == [1, 1, 1, 0, 0, 0, 0, 0]


def test_garbage_comes_before_the_frame() -> None:
    junk, *rest = _through(PINGS, _counted(FaultKind.GARBAGE, amount=64))
    assert (len(junk), rest) == (64, PINGS)


def test_the_same_seed_draws_the_same_bits_and_bytes() -> None:
    faults = (_counted(FaultKind.FLIP, 4), _counted(FaultKind.GARBAGE, 2, 32))
    assert _through(PINGS, *faults) == _through(PINGS, *faults) != _through(PINGS, *faults, seed="2")


def test_replay_brings_back_a_frame_of_the_session_before() -> None:
    former = [_frame(m.Flush(number), number, epoch=5) for number in range(3)]
    now = [_frame(m.Flush(number), number, epoch=6) for number in range(3)]
    first, *rest = _through([*former, *now], _counted(FaultKind.REPLAY))
    assert [first, *rest[:2]] == former
    assert rest[2] in former
    assert rest[3:] == now


def test_replay_waits_until_there_was_a_session_before() -> None:
    strike = Strike(_counted(FaultKind.REPLAY), 0.0)
    lane = Lane(_ALL, "1")
    lane.add(strike)
    flow = Flow(lane, Frames())
    for frame in [_frame(m.Hello("a", 1, bytes(32), 1, 4096, 4096), epoch=0), _frame(m.Flush(1)), *PINGS]:
        flow.send(frame, 0.0)
    assert (strike.struck, strike.is_over(0.0)) == (0, False)
    flow.send(_frame(m.Flush(1), epoch=8), 0.0)
    assert (strike.struck, strike.is_over(0.0)) == (1, True)


def test_forged_reply_is_right_in_all_but_the_position_and_comes_first() -> None:
    written = _frame(m.Written(3, [m.Placement(10, 1, 4)]), 1, tag=9)
    ping, fake, true = _through([PINGS[0], written], _counted(FaultKind.FORGE))
    assert (ping, true) == (PINGS[0], written)
    header = read_header(memoryview(fake), len(fake), "")
    assert header is not None
    assert (header.kind, header.epoch, header.number, header.tag) == (Kind.WRITTEN, 7, 1, 9)
    assert decode(header, memoryview(fake), "") == m.Written(3, [m.Placement(11, 1, 4)])


def test_delay_lets_all_arrive_later_and_in_order() -> None:
    flow = Flow(_lane(LinkFault(FaultKind.DELAY, 0.02)), Frames())
    flow.send(PINGS[0], 0.0)
    flow.send(PINGS[1], 0.005)
    assert flow.arrived(0.0199) == []
    assert flow.arrived(0.02) == [PINGS[0]]
    assert flow.next_due() == 0.025
    assert flow.arrived(0.03) == [PINGS[1]]
    assert flow.next_due() == float("inf")


def test_jitter_delays_by_up_to_so_much_and_keeps_the_order() -> None:
    flow = Flow(_lane(LinkFault(FaultKind.JITTER, 0.02)), Frames())
    for number, frame in enumerate(PINGS):
        flow.send(frame, number / 1000)
    times = [due for due, _ in _times(flow, 1.0)]
    assert times == sorted(times)
    assert times[0] != 0.0
    assert times[-1] <= 0.027


def test_a_delay_that_has_ended_does_not_let_later_frames_overtake() -> None:
    lane = _lane(LinkFault(FaultKind.DELAY, 0.5, for_s=0.1))
    flow = Flow(lane, Frames())
    flow.send(PINGS[0], 0.0)
    flow.send(PINGS[1], 0.2)
    assert flow.arrived(0.4) == []
    assert flow.arrived(0.5) == PINGS[:2]


def test_rate_is_that_of_the_line() -> None:
    flow = Flow(_lane(LinkFault(FaultKind.RATE, 8e6)), Runs())
    flow.send(bytes(500_000), 0.0)
    flow.send(bytes(500_000), 0.0)
    times = _times(flow, 10.0)
    assert times[-1][0] == pytest.approx(1.0)
    for due, size_bytes in times:
        assert size_bytes <= 1000, f"{size_bytes} bytes at once after {due} s"
    assert sum(size_bytes for due, size_bytes in times if due <= 0.25) == pytest.approx(250_000, abs=1000)


def test_a_slow_cable_of_packets_delivers_each_one_whole_behind_its_last_bit() -> None:
    lane = Lane([FaultKind.RATE], "1", Medium.PACKETS)
    lane.add(Strike(LinkFault(FaultKind.RATE, 8e6), 0.0))
    flow = Flow(lane, Runs())
    flow.send(bytes(1500), 0.0)
    flow.send(bytes(9000), 0.0)
    assert _times(flow, 1.0) == [(0.0015, 1500), (0.0105, 9000)]


@pytest.mark.parametrize("other", [None, 8e9, 8e3], ids=["alone", "and a faster one", "and the same one"])
def test_the_slowest_of_the_rates_at_work_holds(other: float | None) -> None:
    lane = _lane(LinkFault(FaultKind.RATE, 8e6))
    lane.add(Strike(LinkFault(FaultKind.RATE, 8e3, for_s=1.0), 0.0))
    if other is not None:
        lane.add(Strike(LinkFault(FaultKind.RATE, other, for_s=1.0), 0.0))
    flow = Flow(lane, Runs())
    flow.send(bytes(1000), 0.0)
    assert _times(flow, 10.0)[-1][0] == pytest.approx(1.0)
    flow.send(bytes(1000), 2.0)
    assert _times(flow, 10.0)[-1][0] == pytest.approx(2.001)


@pytest.mark.parametrize(("medium", "seconds"), [(Medium.STREAM, 1.0), (Medium.PACKETS, 1.0), (Medium.LINE, 1.25)])
def test_a_rate_counts_start_and_stop_bits_on_a_serial_line(medium: Medium, seconds: float) -> None:
    lane = Lane([FaultKind.RATE], "1", medium)
    lane.add(Strike(LinkFault(FaultKind.RATE, 9600), 0.0))
    flow = Flow(lane, Runs())
    flow.send(bytes(1200), 0.0)
    assert _times(flow, 10.0)[-1][0] == pytest.approx(seconds)


@pytest.mark.parametrize("kind", [FaultKind.CUT, FaultKind.HALF_OPEN])
def test_a_silent_cable_swallows_everything_until_it_heals(kind: FaultKind) -> None:
    flow = Flow(_lane(LinkFault(kind, for_s=2.0)), Frames())
    flow.send(PINGS[0], 0.0)
    flow.send(PINGS[1], 1.999)
    flow.send(PINGS[2], 2.0)
    assert flow.arrived(9.0) == [PINGS[2]]


def test_a_lane_tells_how_long_it_is_silent() -> None:
    lane = _lane(LinkFault(FaultKind.CUT, for_s=2.0), LinkFault(FaultKind.HALF_OPEN, for_s=3.0))
    assert [lane.silent_until(now) for now in (0.0, 2.5, 3.0, 4.0)] == [3.0, 3.0, 3.0, 4.0]
    assert Lane((), "1").silent_until(1.0) == 1.0


def test_a_fault_in_both_directions_strikes_the_next_frames_of_either() -> None:
    strike = Strike(_counted(FaultKind.DROP, 3), 0.0)
    flows = []
    for seed in "12":
        lane = Lane(_ALL, seed)
        lane.add(strike)
        flows.append(Flow(lane, Frames()))
    for frame in PINGS[:3]:
        for flow in flows:
            flow.send(frame, 0.0)
    assert [flow.arrived(0.0) for flow in flows] == [[PINGS[2]], [PINGS[1], PINGS[2]]]


def test_a_strike_may_spare_what_is_just_arriving() -> None:
    lane = Lane(_ALL, "1")
    lane.add(Strike(LinkFault(FaultKind.CUT, for_s=1.0), 0.0, spared=1))
    flow = Flow(lane, Frames())
    flow.send(b"".join(PINGS), 0.0)
    assert flow.arrived(0.0) == PINGS[:1]


def test_a_withdrawn_fault_strikes_no_more() -> None:
    strike = Strike(_counted(FaultKind.DROP, 5), 0.0)
    lane = Lane(_ALL, "1")
    lane.add(strike)
    flow = Flow(lane, Frames())
    flow.send(PINGS[0], 0.0)
    strike.withdraw()
    flow.send(PINGS[1], 0.0)
    assert (flow.arrived(0.0), strike.struck) == ([PINGS[1]], 1)


def test_faults_stack_in_their_order() -> None:
    arrived = _through(PINGS[:4], _counted(FaultKind.DUPLICATE), _counted(FaultKind.DROP), _counted(FaultKind.REORDER))
    # The first is dropped, the second is doubled, and the first of the pair changes places with the other.
    assert arrived == [PINGS[1], PINGS[1], PINGS[2], PINGS[3]]


def test_a_fault_that_is_at_work_goes_on_in_the_next_connection() -> None:
    lane = _lane(_counted(FaultKind.DROP, 2))
    former, flow = Flow(lane, Frames()), Flow(lane, Frames())
    former.send(PINGS[0], 0.0)
    flow.send(PINGS[1] + PINGS[2], 0.0)
    assert (former.arrived(0.0), flow.arrived(0.0)) == ([], [PINGS[2]])


def test_waiting_bytes_are_those_that_have_not_arrived() -> None:
    flow = Flow(_lane(LinkFault(FaultKind.DELAY, 1.0)), Frames())
    flow.send(b"".join(PINGS), 0.0)
    assert flow.waiting_bytes == len(b"".join(PINGS))
    flow.arrived(1.0)
    assert flow.waiting_bytes == 0


_TEXTS = {
    LinkFault(FaultKind.CUT, for_s=3.0): "cut link for 3s",
    LinkFault(FaultKind.HALF_OPEN, for_s=0.5): "half-open link for 0.5s",
    LinkFault(FaultKind.DELAY, 0.02, for_s=1.0): "delay frames by 20ms for 1s",
    LinkFault(FaultKind.JITTER, 0.02, for_s=1.0): "delay frames by up to 20ms for 1s",
    LinkFault(FaultKind.DROP, count=1): "drop 1 frame",
    LinkFault(FaultKind.DUPLICATE, count=2): "duplicate 2 frames",
    LinkFault(FaultKind.REORDER, count=2): "reorder 2 frames",
    LinkFault(FaultKind.TRUNCATE, 100, count=1): "truncate 1 frame at byte 100",
    LinkFault(FaultKind.FLIP, count=3): "flip a bit in 3 frames",
    LinkFault(FaultKind.GARBAGE, 64, count=1): "64 bytes of garbage before 1 frame",
    LinkFault(FaultKind.REPLAY, count=1): "replay 1 frame of a former session",
    LinkFault(FaultKind.FORGE, count=1): "forged reply before 1 frame",
    LinkFault(FaultKind.RATE, 1e7, for_s=2.0): "slow link to 10Mbit for 2s",
}


def test_every_fault_has_words() -> None:
    assert {fault.kind for fault in _TEXTS} == set(FaultKind)
    for fault, text in _TEXTS.items():
        assert fault.text == text
        assert (fault.for_s is None) == (FAULTS[fault.kind].extent is Extent.COUNT)
