"""The cable between two kernels of the lab, in the hands of a runner that does not hold it: the runner outside does."""

from __future__ import annotations

import asyncio

from hwvirt.link.faults import LinkFault
from hwvirt.rig.errands import Asked, Outside, What

__all__ = ["FarCable", "FarStrike"]


class FarStrike:
    """A fault at work on the cable outside; see `LinkStrike`. `struck` is known at its end."""

    def __init__(self, outside: Outside, asked: Asked) -> None:
        self._outside = outside
        self._asked = asked
        self.struck = 0

    async def begun(self) -> None:
        """Returns when it is at work, or is known to have failed."""
        await asyncio.shield(self._asked.begun)

    async def over(self) -> None:
        """Returns when the time of the fault is over, or all its frames were hit. Raises LabError."""
        self.struck = (await asyncio.shield(self._asked.answer)).struck

    async def end(self) -> None:
        """It strikes no more. Idempotent. Raises LabError."""
        if not self._asked.answer.done():
            self._outside.end(self._asked.number)
        await self.over()


class FarCable:
    """See `Cable`. A frame is an Ethernet frame, or a run of bytes; a cut resets nothing, as a cable cannot."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside

    async def strike(self, fault: LinkFault, toward: str | None) -> FarStrike:
        """Returns when the fault is at work: on what goes to that controller, or (None) on what passes in any direction."""
        strike = FarStrike(self._outside, self._outside.ask(What.STRIKE, toward, fault))
        try:
            await strike.begun()
        except asyncio.CancelledError:
            await strike.end()
            raise
        return strike
