"""What can be wrong in a controller's configuration file, and how it is said."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwvirt.controller.config import GuardConfig
from hwvirt.controller.config_file import load_config
from hwvirt.errors import ExitCode, UsageError

from .by_hand import Desk

SEE = "See docs/controller.md for the keys."
KNOWN = "Known: name, state_dir, control, disk, luns, store, link, nbd."
KNOWN_OF_DISK = "Known: name, path, kind, block_bytes, witness, guard."
KNOWN_OF_LUN = "Known: lun, mode, lba, blocks, of, remote_lun, start."
_WINDOW = {"lba": 256, "blocks": 1024}
_GUARD = {"rig": "desk", "role": "first", "wwn": "naa.5000c500aabbccdd", "size_bytes": 8 << 20, "window": _WINDOW}
_TLS = {"authority": "ca", "certificate": "c", "key": "k"}


def sg(guard: Any, **changes: Any) -> dict[str, Any]:
    """A SCSI disk with this guard. It stands in line 9, in a window of blocks 256 to 1279."""
    return {"disk__kind": "sg", "disk__guard": guard, **changes}


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
        ({"disk__zzz": 1}, f":8:5: disk: unknown key 'zzz'. {KNOWN_OF_DISK}"),
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
        (
            {"disk__kind": "sg"},
            ":5:11: disk: key 'guard' is missing. It says which disk this is: a node may be another disk tomorrow. "
            "See docs/controller.md.",
        ),
        ({"disk__guard": "held"}, ":8:5: disk: only a disk of the kind 'sg' has a guard. Take it out."),
        ({"disk__guard": _GUARD}, ":8:5: disk: only a disk of the kind 'sg' has a guard. Take it out."),
        (sg("hold"), ":9:14: disk.guard: unknown word 'hold'. Did you mean 'held'?"),
        (sg(5), f":9:14: disk.guard: must be a text or an object, not 5. {SEE}"),
        (sg([]), f":9:14: disk.guard: must be a text or an object, not a list. {SEE}"),
        (sg({}), f":9:14: disk.guard: key 'rig' is missing. {SEE}"),
        (sg(_GUARD | {"wwm": ""}), ":18:7: disk.guard: unknown key 'wwm'. Did you mean 'wwn'?"),
        (sg(_GUARD | {"wwn": 5}), f":12:14: disk.guard.wwn: must be a text, not 5. {SEE}"),
        (sg(_GUARD | {"wwn": ""}), f":12:14: disk.guard.wwn: is empty. {SEE}"),
        (
            sg(_GUARD | {"wwn": None}),
            ":9:14: disk.guard: names no disk. Give its wwn or its serial; `hwvirt scan` prints both.",
        ),
        (sg(_GUARD | {"size_bytes": "8MiB"}), f":13:21: disk.guard.size_bytes: must be a whole number, not '8MiB'. {SEE}"),
        (sg(_GUARD | {"window": {"lba": 256}}), f":14:17: disk.guard.window: key 'blocks' is missing. {SEE}"),
        (
            sg(_GUARD),
            ":21:5: luns[0]: LUN 0 has blocks 0 to 1023, and the window of the guard is 256 to 1279. "
            "Nothing may be written outside of it.",
        ),
        (
            sg(_GUARD, luns__0__lba=256, luns__0__blocks=1025),
            ":21:5: luns[0]: LUN 0 has blocks 256 to 1280, and the window of the guard is 256 to 1279. "
            "Nothing may be written outside of it.",
        ),
        (
            sg(_GUARD, luns__0__lba=256, store={"lba": 255, "blocks": 1}),
            ":41:12: store: the store has blocks 255 to 255, and the window of the guard is 256 to 1279. "
            "Nothing may be written outside of it.",
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
        (b'{"name": "a",\n name: "b"}', f":2:2: not JSON: expecting property name enclosed in double quotes. {SEE}"),
        (b" \n", f":1:1: the file is empty. {SEE}"),
        (b"\n []", f":2:2: must be an object, not a list. {SEE}"),
        (b'{\n "n\xff": 1}', f":2:4: not JSON: not UTF-8 text. {SEE}"),
        (b'{"nbd": {"port": 1' + b"0" * 5000 + b"}}", ":1:18: nbd.port: is beyond all numbers"),
        (b'{"nbd": {"port": 1e999}}', ":1:18: nbd.port: is beyond all numbers"),
        *((b'{"nbd": {"port": -' + b"1" * n + b"}}", ":1:18: nbd.port: is beyond all numbers") for n in (310, 350, 401)),
        (b'{"a - at `$.b": 1}', f":1:2: unknown key 'a - at `$.b'. {KNOWN}"),
        (b'{"a` - at `$.b": 1}', f":1:2: unknown key 'a` - at `$.b'. {KNOWN}"),
        (b'{"a` - at `$.disk": 1, "disk": {}}', f":1:2: unknown key 'a` - at `$.disk'. {KNOWN}"),
        (b'{"name - at `$.disk": 1, "disk": {"name": "d"}}', f":1:2: unknown key 'name - at `$.disk'. {KNOWN}"),
        (b'{"name` - at `$.disk": 1, "disk": {"name": "d"}}', f":1:2: unknown key 'name` - at `$.disk'. {KNOWN}"),
        (b'{"` - at `$.luns[0].lun": 1, "luns": [{"lun": 0}]}', f":1:2: unknown key '` - at `$.luns[0].lun'. {KNOWN}"),
        (b'{"a` - at `$[0]": 1}', f":1:2: unknown key 'a` - at `$[0]'. {KNOWN}"),
        (b'{"disk": {"a` - at `$.b": 1}}', f":1:11: disk: unknown key 'a` - at `$.b'. {KNOWN_OF_DISK}"),
        (b'{"luns": [{"a\\n` - at `$": 1}]}', f":1:12: luns[0]: unknown key 'a\\n` - at `$'. {KNOWN_OF_LUN}"),
        (b"[" * 100_000, ":1:1: lists or objects lie too deep in each other"),
        (b"[" * 900 + b"]" * 900, ":1:1: lists or objects lie too deep in each other"),
    ],
    ids=[
        *("doubled key", "doubled key below", "not JSON", "empty", "no object", "no text"),
        *("many digits", "endless", "310 digits", "350 digits", "401 digits"),
        *("place in a key", "place behind a key", "real place behind a key", "known key and real place in a key"),
        *("known key and real place behind it", "number behind a key", "index behind a key"),
        *("place behind a key below", "line end and place behind a key"),
        *("too deep", "too deep for us"),
    ],
)
def test_file_that_is_no_configuration_is_refused(tmp_path: Path, text: bytes, said: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text)
    assert refusal(path) == said


ANY_KEY = st.text() | st.sampled_from(
    ["disk", "luns", "link", "store", "a` - at `$.disk", "` - at `$.luns[0]", "` - at `$.luns[0].lun", "` - at `$[...]"]
)
ANY_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(-(10**400), 10**400) | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_KEY, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(chance=st.randoms(use_true_random=False), key=ANY_KEY, value=ANY_VALUE, whole=st.booleans())
def test_whatever_json_is_in_the_file_the_answer_is_a_refusal(chance: Random, key: str, value: Any, whole: bool) -> None:
    """A key or a value anywhere in a right configuration is replaced or added, or the whole."""
    with TemporaryDirectory() as folder:
        path = Desk(Path(folder)).a(1)
        config = value if whole else _with(json.loads(path.read_text()), chance, key, value)
        path.write_text(json.dumps(config))
        with suppress(UsageError):
            load_config(path)


def _with(config: Any, chance: Random, key: str, value: Any) -> Any:
    if isinstance(config, list) and config:
        index = chance.randrange(len(config))
        return [*config[:index], _with(config[index], chance, key, value), *config[index + 1 :]]
    if not isinstance(config, dict) or chance.random() < 0.1:
        return value
    if chance.random() < 0.3:
        return config | {key: value}
    changed = chance.choice(list(config))
    return config | {changed: _with(config[changed], chance, key, value)}


def test_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "none") == (
        f"cannot read the controller configuration {tmp_path}/none: No such file or directory. "
        "Name a controller configuration file."
    )


def test_right_configuration_is_taken(tmp_path: Path) -> None:
    desk = Desk(tmp_path)
    assert [load_config(path).name for path in (desk.a(1), desk.b(), desk.own())] == ["a", "b", "a"]


@pytest.mark.parametrize("guard", ["held", _GUARD, _GUARD | {"wwn": None, "serial": "ZL2001"}], ids=str)
def test_right_guard_is_taken(tmp_path: Path, guard: Any) -> None:
    window = {"luns__0__lba": 256, "luns__0__blocks": 512, "store": {"lba": 768, "blocks": 512}}
    taken = load_config(Desk(tmp_path).a(1, **sg(guard, **window))).disk.guard
    assert taken == "held" if guard == "held" else isinstance(taken, GuardConfig)


def test_json_that_is_no_yaml_is_taken_too(tmp_path: Path) -> None:
    path = Desk(tmp_path).own()
    path.write_text("\ufeff" + path.read_text().replace("  ", "\t").replace("/", "\\/"))
    assert load_config(path).disk.path == f"{tmp_path}/first.img"
