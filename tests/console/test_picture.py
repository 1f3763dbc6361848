"""docs/console.svg is what tools/console_picture.py draws, and needs no other host."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_picture_is_drawn_from_the_script_and_needs_no_other_host(tmp_path: Path) -> None:
    path = tmp_path / "console.svg"
    subprocess.run(
        [sys.executable, str(ROOT / "tools" / "console_picture.py"), "--output", str(path)],
        check=True, env={"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    drawn = path.read_text(encoding="utf-8")
    assert "nothing&#160;broken" in drawn
    assert [part for part in drawn.split('"') if part.startswith("http")] == ["http://www.w3.org/2000/svg"]
    assert drawn == (ROOT / "docs" / "console.svg").read_text(encoding="utf-8"), "run tools/console_picture.py"
