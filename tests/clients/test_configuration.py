"""What can be wrong in a controller's configuration file, and how it is said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hwvirt.controller.config_file import load_config
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
        ({"lonk": 1}, ":30:3: unknown key 'lonk'. Did you mean 'link'?"),
        ({"link__stal_s": 1}, ":29:5: link: unknown key 'stal_s'. Did you mean 'stall_s'?"),
        ({"disk__zzz": 1}, ":8:5: disk: unknown key 'zzz'. Known: name, path, kind, block_bytes, witness."),
        ({"disk": None}, f":1:1: key 'disk' is missing. {SEE}"),
        ({"link__port": None}, f":22:11: link: key 'port' is missing. {SEE}"),
        ({"link__port": "9"}, f":25:13: link.port: must be a whole number, not '9'. {SEE}"),
        ({"link__port": 1.5}, f":25:13: link.port: must be a whole number, not 1.5. {SEE}"),
        ({"link__port": True}, f":25:13: link.port: must be a whole number, not true. {SEE}"),
        ({"link__port": 65536}, f":25:13: link.port: must be 0 to 65535, not 65536. {SEE}"),
        ({"link__port": 10**30}, f":25:13: link.port: must be 0 to 65535, not {10**30}. {SEE}"),
        ({"link__port": 10**50}, f":25:13: link.port: must be 0 to 65535, not 1{'0' * 39}.... {SEE}"),
        ({"link__stall_s": float("inf")}, ":29:16: link.stall_s: Infinity is no number of JSON"),
        ({"link__stall_s": -1}, f":29:16: link.stall_s: must be at least 0, not -1. {SEE}"),
        ({"link__up_within_s": 0}, f":28:20: link.up_within_s: must be more than 0, not 0. {SEE}"),
        ({"link__peer": ""}, f":26:13: link.peer: is empty. {SEE}"),
        ({"link__peer": "b" * 65}, f":26:13: link.peer: has 65 characters, at most 64 are possible. {SEE}"),
        ({"link__peer": "b\n"}, f":26:13: link.peer: must be of printable ASCII, not 'b\\n'. {SEE}"),
        ({"link__peer": "bä"}, f":26:13: link.peer: must be of printable ASCII, not 'bä'. {SEE}"),
        ({"link__peer": "b\0"}, ":26:13: a character that text does not have"),
        ({"link": []}, f":22:11: link: must be an object, not a list. {SEE}"),
        ({"link__tls": {"key": "k"}}, f":29:12: link.tls: key 'authority' is missing. {SEE}"),
        (
            {"link__host": None, "link__port": None, "link__serial": {"device": "t"}, "link__tls": _TLS},
            ":30:5: link: a serial line has no tls. Take it out, or `serial`.",
        ),
        (
            {"link__host": None, "link__port": None, "link__serial": {"device": "t", "flow": "xon"}},
            ":29:15: link.serial.flow: unknown word 'xon'. Known: none, rtscts.",
        ),
        (
            {"link__host": None, "link__port": None, "link__serial": {"device": "t", "receive_buffer_bytes": 5}},
            f":29:31: link.serial.receive_buffer_bytes: must be 1024 to {1 << 30}, not 5. {SEE}",
        ),
        ({"luns": {}}, f":9:11: luns: must be a list, not an object. {SEE}"),
        ({"luns__0__mode": "redirekt"}, ":12:15: luns[0].mode: unknown word 'redirekt'. Did you mean 'redirect'?"),
        ({"luns__1__lun": 256}, f":17:14: luns[1].lun: must be 0 to 255, not 256. {SEE}"),
        ({"luns__1__lun": 0}, ":17:14: luns[1].lun: LUN 0 is configured twice. Give one of them another number."),
        ({"luns__1__of": 1}, ":16:5: luns[1]: LUN 1 is frozen, but LUN 1 does not redirect. LUNs that do: 0."),
        ({"luns__0__lba": -1}, f":13:14: luns[0].lba: must be 0 to {1 << 60}, not -1. {SEE}"),
        ({"luns__0__blocks": 0}, ":10:5: luns[0]: LUN 0 has no blocks. Give it `lba` and `blocks`."),
        ({"disk__block_bytes": 1000}, f":8:20: disk.block_bytes: must be 512 or 4096, not 1000. {SEE}"),
        ({"disk__block_bytes": "4096"}, f":8:20: disk.block_bytes: must be 512 or 4096, not '4096'. {SEE}"),
        (
            {"store": {"lba": 1000, "blocks": 24}},
            ":30:12: store: LUN 0 has blocks 0 to 1023, and the store begins at block 1000. Move one of them.",
        ),
    ],
    ids=lambda value: ",".join(value) if isinstance(value, dict) else "",
)
def test_value_that_cannot_be_is_refused_with_its_place(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert refusal(Desk(tmp_path).a(1, **changes)) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b'{"name": "a",\n "name": "b"}', ":2:2: key 'name' stands here a second time; the first is in line 1"),
        (
            b'{"disk": {"path": "x",\n\t"p\\u0061th": "y"}}',
            ":2:2: disk: key 'path' stands here a second time; the first is in line 1",
        ),
        (b'{"name": "a",\n name: "b"}', ":2:2: not JSON: expecting property name enclosed in double quotes"),
        (b" \n", ":1:1: the file is empty"),
        (b"\n []", f":2:2: must be an object, not a list. {SEE}"),
        (b'{\n "n\xff": 1}', ":2:4: not JSON: not UTF-8 text"),
        (b'{"nbd": {"port": 1' + b"0" * 5000 + b"}}", ":1:18: nbd.port: is beyond all numbers"),
        (b'{"nbd": {"port": 1e999}}', ":1:18: nbd.port: is beyond all numbers"),
        (b"[" * 100_000, ":1:1: lists or objects lie too deep in each other"),
        (b"[" * 900 + b"]" * 900, ":1:1: lists or objects lie too deep in each other"),
    ],
    ids=[
        *("doubled key", "doubled key below", "not JSON", "empty", "no object", "no text"),
        *("many digits", "endless", "too deep", "too deep for us"),
    ],
)
def test_file_that_is_no_configuration_is_refused(tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    assert refusal(path) == said


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == (
        f"cannot read the controller configuration {tmp_path}/none: No such file or directory."
    )


def test_right_configuration_is_taken(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert [load_config(path).name for path in (desk.a(1), desk.b(), desk.own())] == ["a", "b", "a"]


def test_json_that_is_no_yaml_is_taken_too(tmp_path: Path) -> None:
    path = Desk(tmp_path).own()
    path.write_text("\ufeff" + path.read_text().replace("  ", "\t").replace("/", "\\/"))
    assert load_config(path).disk.path == f"{tmp_path}/first.img"
