"""How much of replies may be under way: small requests may ask for large ones, and a peer may be slow to take them."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["ReplyRoom"]


class ReplyRoom:
    """At most `most_bytes` at a time; who does not fit waits for his turn. For one asyncio loop."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.taken_bytes = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, size_bytes: int) -> None:
        """Returns when there is room for so many bytes, which are at most `most_bytes`: in the order of the calls."""
        if not self._waiting and self.taken_bytes + size_bytes <= self.most_bytes:
            self.taken_bytes += size_bytes
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size_bytes, turn))
        await turn

    def leave(self, size_bytes: int) -> None:
        """So many bytes are under way no more."""
        self.taken_bytes -= size_bytes
        waiting = self._waiting
        while waiting and self.taken_bytes + waiting[0][0] <= self.most_bytes:
            next_bytes, turn = waiting.popleft()
            self.taken_bytes += next_bytes
            if not turn.done():
                turn.set_result(None)
            else:  # the loop ends
                self.taken_bytes -= next_bytes
