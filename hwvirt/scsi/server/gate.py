"""Who may be in a device server at the same time: many commands together, or one alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

__all__ = ["Gate"]


class Gate:
    """Who wants to be alone waits until the others are out; who comes after waits for its end.

    Without contention nothing suspends, and no running event loop is needed.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._inside = 0
        self._emptied: asyncio.Future[None] | None = None

    def enter_now(self) -> bool:
        """Goes in with others, and `leave` must follow; False when one is alone or is about to be."""
        if self._turn.locked():
            return False
        self._inside += 1
        return True

    async def enter(self) -> None:
        """As `enter_now`, when that is possible again."""
        while not self.enter_now():
            async with self._turn:
                pass

    def leave(self) -> None:
        """Ends what `enter` began."""
        self._inside -= 1
        if not self._inside and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Nobody else is inside meanwhile."""
        async with self._turn:
            if self._inside:
                self._emptied = asyncio.get_running_loop().create_future()
                try:
                    await self._emptied
                finally:
                    self._emptied = None
            yield
