"""The life of a redirected volume, as a table."""

from __future__ import annotations

from enum import Enum

from hwvirt.errors import ControllerError

__all__ = ["MEANING", "TRANSITIONS", "State", "Step", "follow"]


class State(Enum):
    """Where new data goes."""

    OWN = "own"
    REDIRECTING = "redirecting"
    COMMITTING = "committing"
    DISCARDING = "discarding"

    @property
    def uses_map(self) -> bool:
        """Whether the map may have entries: blocks that lie in the store, or read as zeroes."""
        return self in _USING_THE_MAP


_USING_THE_MAP = (State.REDIRECTING, State.COMMITTING)


class Step(Enum):
    """What changes the state."""

    REDIRECT = "redirect"
    COMMIT = "commit"
    DISCARD = "discard"
    DONE = "done"


MEANING = {
    State.OWN: "Writes go to the first disk; the map is empty.",
    State.REDIRECTING: "Writes of new data go to the second controller; the first disk is not written.",
    State.COMMITTING: "Redirected blocks are written back to the first disk while hosts go on working.",
    State.DISCARDING: "Writes go to the first disk; the map is empty, and the second controller is told to forget.",
}

TRANSITIONS = {
    State.OWN: {Step.REDIRECT: State.REDIRECTING},
    State.REDIRECTING: {Step.COMMIT: State.COMMITTING, Step.DISCARD: State.DISCARDING},
    State.COMMITTING: {Step.DONE: State.OWN},
    State.DISCARDING: {Step.DONE: State.OWN},
}


def follow(state: State, step: Step) -> State:
    """The next state. Raises ControllerError for a step that the table does not have, and changes nothing."""
    following = TRANSITIONS[state].get(step)
    if following is None:
        possible = ", ".join(sorted(known.value for known in TRANSITIONS[state] if known is not Step.DONE))
        raise ControllerError(
            f"cannot {step.value} while {state.value}.",
            next_step=f"Possible now: {possible}." if possible else f"Wait until it is no longer {state.value}.",
        )
    return following
