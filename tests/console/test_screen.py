"""Whatever happens while the screen is painted, the terminal is given back."""

from __future__ import annotations

import io
import signal
from collections.abc import Iterator

import pytest
from typing_extensions import override

from hwvirt.console.live import LiveMode
from hwvirt.console.screen import Screen, wants_screen

from .consolekit import START, told_run

TAKEN, GIVEN_BACK = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture(autouse=True)
def usual_ctrl_c() -> Iterator[None]:
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


class Interrupting(io.StringIO):
    """A terminal whose user presses Ctrl-C at the `when`th write."""

    def __init__(self, when: int) -> None:
        super().__init__()
        self.left = when

    @override
    def write(self, text: str) -> int:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGINT)
        return super().write(text)


@pytest.mark.parametrize("when", range(1, 12))
def test_ctrl_c_while_something_is_painted_gives_the_terminal_back(when: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    stream = Interrupting(when)
    assert wants_screen(stream, LiveMode.ALWAYS)
    screen = Screen(stream, told_run())
    with pytest.raises(KeyboardInterrupt):
        try:
            screen.start(START)
            for second in range(1, 12):
                screen.paint(START + second)
        finally:
            screen.stop()
    assert stream.left < 0
    assert stream.getvalue().count(TAKEN) == stream.getvalue().count(GIVEN_BACK) == 1
    assert stream.getvalue().index(TAKEN) < stream.getvalue().index(GIVEN_BACK)
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())
