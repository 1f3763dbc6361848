"""`hwvirt watch`: a running controller seen from outside. It only looks: Ctrl-C ends the view and nothing else."""

from __future__ import annotations

import asyncio
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from hwvirt.console.client import ask, events
from hwvirt.console.lines import event_line, status_line, write_line
from hwvirt.console.model import ConsoleModel
from hwvirt.console.screen import LiveMode, Screen, wants_screen
from hwvirt.console.sentences import Tone
from hwvirt.errors import ControllerError, ExitCode

__all__ = ["watch"]

_POLL_EVERY_S = 0.25
_LINE_EVERY_S = 1.0
_FIRST_REPLY_WITHIN_S = 5.0
_REPLY_WITHIN_S = 1.0


def watch(socket_path: Path, stream: TextIO | None = None, live: LiveMode = LiveMode.AUTO) -> ExitCode:
    """Shows the controller behind a control socket until Ctrl-C, which is PASSED: a viewer has no verdict.

    Raises ControllerError when no controller answers there, or when it ends.
    """
    viewer = _Viewer(Path(socket_path), sys.stdout if stream is None else stream, live)
    with suppress(KeyboardInterrupt):
        asyncio.run(viewer.run())
    return ExitCode.PASSED


class _Viewer:
    def __init__(self, socket_path: Path, stream: TextIO, live: LiveMode) -> None:
        self._socket_path = socket_path
        self._stream = stream
        self._model = ConsoleModel()
        self._name = ""
        self._screen = Screen(stream, self._model) if wants_screen(stream, live) else None

    async def run(self) -> None:
        """Ends only by an error or a cancellation."""
        await self._meet()
        if self._screen:
            self._screen.start(time.time())
        listener = asyncio.create_task(self._listen())
        try:
            await self._show()
        finally:
            listener.cancel()
            if self._screen:
                self._screen.stop()

    async def _show(self) -> None:
        line_at = 0.0
        while True:
            now = time.time()
            if self._screen:
                self._screen.paint(now)
            elif now - line_at >= _LINE_EVERY_S:
                line_at = now
                write_line(self._stream, status_line(self._model.controllers[self._name], now))
            await asyncio.sleep(_POLL_EVERY_S)
            await self._poll_known()

    async def _meet(self) -> None:
        try:
            async with asyncio.timeout(_FIRST_REPLY_WITHIN_S):
                await self._poll()
        except TimeoutError:
            raise ControllerError(
                f"the controller at {self._socket_path} does not answer within {_FIRST_REPLY_WITHIN_S:g}s.",
                next_step="It accepts connections but is stopped or busy: look at its process.",
            ) from None

    async def _poll(self) -> None:
        report = await ask(self._socket_path, "status")
        self._name = str(report.get("controller", "")) or self._socket_path.stem
        self._model.status(self._name, report, time.time())

    async def _poll_known(self) -> None:
        """A controller that has answered before may be busy, then the view shows its silence; or gone, then that is said."""
        try:
            async with asyncio.timeout(_REPLY_WITHIN_S):
                await self._poll()
        except TimeoutError:
            return
        except ControllerError as error:
            raise ControllerError(
                f"controller {self._name} is gone: {error.reason}",
                next_step="Its own log tells why it ended.",
            ) from error

    async def _listen(self) -> None:
        try:
            async for event in events(self._socket_path):
                self._model.apply(event)
                if not self._screen:
                    write_line(self._stream, event_line(self._model, event))
        except ControllerError as error:
            self._model.note(time.time(), self._name, f"no more events: {error.reason}", Tone.WARNING)
