"""A logical unit in memory that answers in the next step of the event loop, and can be told to misbehave."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from errno import ECONNRESET, ENOTCONN

from hwvirt.buffers import Pieces, joined
from hwvirt.host.initiator import Answer, Op


class MemoryUnit:
    """An `Initiator`. `misbehave` may answer a request, by its number from 1, in its own way; None leaves it alone."""

    def __init__(
        self, blocks: int, block_bytes: int = 512, misbehave: Callable[[int, Op], Answer | None] | None = None
    ) -> None:
        self.blocks, self.block_bytes, self.read_only = blocks, block_bytes, False
        self.medium = bytearray(blocks * block_bytes)
        self.requests: list[tuple[Op, int, int, bool]] = []
        self.in_flight = self.most_in_flight = 0
        self.gone = False
        self._misbehave = misbehave
        self._loop = asyncio.get_running_loop()

    def submit(
        self, op: Op, lba: int, blocks: int, data: Pieces, done: Callable[[Answer], None], *, fua: bool = False
    ) -> None:
        self.requests.append((op, lba, blocks, fua))
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        answer = self._misbehave(len(self.requests), op) if self._misbehave else None
        if self.gone:
            answer = Answer(ENOTCONN)
        elif answer is None:
            answer = self._execute(op, lba * self.block_bytes, blocks * self.block_bytes, data)
        self.gone |= answer.error == ECONNRESET
        self._loop.call_soon(self._answer, done, answer)

    def _answer(self, done: Callable[[Answer], None], answer: Answer) -> None:
        self.in_flight -= 1
        done(answer)

    def _execute(self, op: Op, start: int, size: int, data: Pieces) -> Answer:
        if op is Op.READ:
            return Answer(0, data=(bytes(self.medium[start : start + size]),))
        if op is not Op.FLUSH:
            self.medium[start : start + size] = joined(data) if op is Op.WRITE else bytes(size)
        return Answer(0)

    async def close(self) -> None:
        self.gone = True
