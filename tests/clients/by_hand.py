"""Controllers whose configuration was written by hand: `hwvirt controller CONFIG`."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .kit import END_S, PROGRAM

FIRST_BLOCKS, SECOND_BLOCKS = 1024, 2048


class Desk:
    """A folder with two disk images and a secret; configurations of controllers `a` and `b` that use them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, blocks in (("first", FIRST_BLOCKS), ("second", SECOND_BLOCKS)):
            with (folder / f"{name}.img").open("wb") as image:
                image.truncate(blocks * 4096)
        (folder / "secret").write_text("between a and b\n")

    def a(self, port: int, **changes: Any) -> Path:
        """Redirects to whom it finds at a port. `changes`: values by their place, like `link__peer="c"`."""
        return self._write(
            {
                "name": "a",
                "state_dir": f"{self.folder}/a.state",
                "control": f"{self.folder}/a.sock",
                "disk": {"name": "first", "path": f"{self.folder}/first.img"},
                "luns": [
                    {"lun": 0, "mode": "redirect", "lba": 0, "blocks": FIRST_BLOCKS},
                    {"lun": 1, "mode": "frozen", "of": 0},
                ],
                "link": {
                    "role": "connect",
                    "host": "127.0.0.1",
                    "port": port,
                    "peer": "b",
                    "secret_file": f"{self.folder}/secret",
                    "up_within_s": 1.0,
                },
            },
            changes,
        )

    def b(self, port: int = 0, **changes: Any) -> Path:
        """Stores, and waits at a port."""
        return self._write(
            {
                "name": "b",
                "state_dir": f"{self.folder}/b.state",
                "control": f"{self.folder}/b.sock",
                "disk": {"name": "second", "path": f"{self.folder}/second.img"},
                "luns": [],
                "store": {"lba": 0, "blocks": SECOND_BLOCKS},
                "link": {
                    "role": "listen",
                    "host": "127.0.0.1",
                    "port": port,
                    "peer": "a",
                    "secret_file": f"{self.folder}/secret",
                },
            },
            changes,
        )

    def own(self, **changes: Any) -> Path:
        """One controller with one volume, without a link."""
        return self._write(
            {
                "name": "a",
                "state_dir": f"{self.folder}/a.state",
                "control": f"{self.folder}/a.sock",
                "disk": {"name": "first", "path": f"{self.folder}/first.img"},
                "luns": [{"lun": 0, "mode": "own", "lba": 0, "blocks": FIRST_BLOCKS}],
            },
            changes,
        )

    def _write(self, config: dict[str, Any], changes: dict[str, Any]) -> Path:
        config = copy.deepcopy(config)
        for place, value in changes.items():
            *way, last = place.split("__")
            part: Any = config
            for step in way:
                part = part[int(step) if step.isdigit() else step]
            if value is None:
                del part[last]
            else:
                part[last] = value
        path = self.folder / f"{config['name']}.json"
        path.write_text(json.dumps(config, indent=2))  # as people write it: errors name lines
        return path


class Running:
    """A controller that serves; `said` grows as it is read."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.said: list[str] = []

    def wait_for(self, event: str) -> str:
        """The next line of its log that names an event."""
        assert self.process.stderr is not None
        while True:
            line = self.process.stderr.readline()
            assert line, f"it ended without {event}: {self.said}"
            self.said.append(line)
            if event in line:
                return line

    @property
    def link_port(self) -> int:
        """Where it listens for its peer."""
        (place,) = re.findall(r"role=listen place=127\.0\.0\.1:(\d+)", "".join(self.said))
        return int(place)

    @property
    def nbd_port(self) -> int:
        """Where hosts reach it."""
        (port,) = re.findall(r"nbd_port=(\d+)", "".join(self.said))
        return int(port)


@contextmanager
def serving(config: Path) -> Iterator[Running]:
    """The controller of a configuration, from when it serves until SIGTERM, which it obeys with exit code 0."""
    with subprocess.Popen(
        [*PROGRAM, "controller", str(config)],
        env=os.environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        running = Running(process)
        try:
            running.wait_for("controller.started")
            yield running
        except BaseException:
            process.kill()
            raise
        process.terminate()
        assert process.wait(END_S) == 0
