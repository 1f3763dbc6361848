"""What can be wrong in a controller's configuration file, and how it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hwvirt.controller.config import load_config
from hwvirt.errors import ExitCode, UsageError

from .by_hand import Desk

SEE = "See docs/controller.md for the keys."
_TLS = {"authority": "ca", "certificate": "c", "key": "k"}


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as caught:
        load_config(path)
    assert caught.value.exit_code is ExitCode.USAGE
    return str(caught.value).removeprefix(f"{path}")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lonk": 1}, f": unknown key 'lonk'. {SEE}"),
        ({"link__stal_s": 1}, f": link: unknown key 'stal_s'. {SEE}"),
        ({"disk": None}, f": key 'disk' is missing. {SEE}"),
        ({"link__port": None}, f": link: key 'port' is missing. {SEE}"),
        ({"link__port": "9"}, f": link.port: Expected `int`, got `str`. {SEE}"),
        ({"link__port": 65536}, f": link.port: Expected `int` <= 65535. {SEE}"),
        ({"link__port": 10**30}, f": link.port: Expected `int` <= 65535. {SEE}"),
        ({"link__stall_s": -1}, f": link.stall_s: Expected `float` >= 0.0. {SEE}"),
        ({"link__peer": ""}, f": link.peer: Expected `str` of length >= 1. {SEE}"),
        ({"link__tls": {"key": "k"}}, f": link.tls: key 'authority' is missing. {SEE}"),
        (
            {"link__host": None, "link__port": None, "link__serial": {"device": "t"}, "link__tls": _TLS},
            f": link: a serial line has no tls. {SEE}",
        ),
        ({"luns__0__mode": "redirekt"}, f": luns[0].mode: Invalid enum value 'redirekt'. {SEE}"),
        ({"luns__1__lun": 256}, f": luns[1].lun: Expected `int` <= 255. {SEE}"),
        ({"luns__0__lba": -1}, f": luns[0].lba: Expected `int` >= 0. {SEE}"),
        ({"luns__0__blocks": 0}, ": luns[0]: LUN 0 has no blocks. Give it `lba` and `blocks`."),
        ({"disk__block_bytes": 1000}, f": disk.block_bytes: Invalid enum value 1000. {SEE}"),
        (
            {"store": {"lba": 1000, "blocks": 24}},
            ": LUN 0 has blocks 0 to 1023, and the store begins at block 1000. Move one of them.",
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_value_that_cannot_be_is_refused_with_its_place(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert refusal(Desk(tmp_path).a(1, **changes)) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"name": "a",\n "name": "b"}', ": key 'name' is there twice. Remove one of them."),
        (b'{"name": "a",\n name: "b"}', f":2:2: not JSON: Expecting property name enclosed in double quotes. {SEE}"),
        (b"", f":1:1: not JSON: Expecting value. {SEE}"),
        (b"[]", f": Expected `object`, got `array`. {SEE}"),
    ],
    ids=["doubled key", "not JSON", "empty", "no object"],
)
def test_file_that_is_no_configuration_is_refused(tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    assert refusal(path) == said


@pytest.mark.parametrize("text", [b"\xff\xfe\xff", b"[" * 100_000], ids=["no text", "too deep"])
def test_junk_is_not_json(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    assert refusal(path).startswith((": not JSON: ", ":1:1: not JSON: "))


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == ": No such file or directory. Name a controller configuration file."


def test_right_configuration_is_taken(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert [load_config(path).name for path in (desk.a(1), desk.b(), desk.own())] == ["a", "b", "a"]
