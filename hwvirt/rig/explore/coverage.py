"""Which cells of the session's table were visited: each state of each role against each thing that can happen there."""

from __future__ import annotations

from collections import Counter
from enum import Enum
from typing import TypeAlias

from hwvirt.link.codec import FIRST_REPLY, FIRST_REQUEST, Kind
from hwvirt.link.config import Role
from hwvirt.link.session import Session, State
from hwvirt.link.wire import Header

__all__ = ["Cell", "Happening", "Visits", "cells"]


class Happening(Enum):
    """What can happen to a session."""

    HELLO = "hello"
    PROOF = "proof"
    PING = "ping"
    PONG = "pong"
    BYE = "bye"
    REQUEST = "request"
    REPLY = "reply"
    OTHER_EPOCH = "other epoch"
    BEFORE = "came before"
    MISSING = "one missing"
    DEADLINE = "deadline"
    CLOSED = "line over"


Cell: TypeAlias = tuple[Role, State, Happening]
Visits: TypeAlias = Counter[Cell]
_CONTROL = {
    Kind.HELLO: Happening.HELLO,
    Kind.PROOF: Happening.PROOF,
    Kind.PING: Happening.PING,
    Kind.PONG: Happening.PONG,
    Kind.BYE: Happening.BYE,
}
_HALF = 1 << 31


def cells() -> list[tuple[Role, State]]:
    """The rows of the table: the states that a session of each role passes through."""
    return [
        (role, state)
        for role in Role
        for state in State
        if state is not State.CLOSED and (role, state) != (Role.CONNECT, State.CONFIRM)
    ]


def happening(session: Session, header: Header) -> Happening:
    """What the arrival of this frame is to the session, by the session's own rules 1 and 4."""
    if header.epoch != session._epoch:
        return Happening.OTHER_EPOCH
    ahead = (header.number - session._taken_frames) % (2 * _HALF)
    if ahead:
        return Happening.MISSING if ahead < _HALF else Happening.BEFORE
    if header.kind >= FIRST_REPLY:
        return Happening.REPLY
    return Happening.REQUEST if header.kind >= FIRST_REQUEST else _CONTROL[Kind(header.kind)]
