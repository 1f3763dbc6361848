"""What NBD clients of others see of a rig that is up, and what they write there."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from .kit import RigUp, fio, good, qemu_io, run

MIB = 1 << 20
BLOCK = 4096


def exports(uri: str) -> dict[str, dict[str, Any]]:
    told = json.loads(good("nbdinfo", "--list", "--json", uri.rsplit("/", 1)[0]))
    return {export["export-name"]: export for export in told["exports"]}


def block_map(uri: str, context: str) -> list[tuple[int, int, int]]:
    """Runs of (offset, bytes, status)."""
    told = json.loads(good("nbdinfo", "--json", f"--map={context}", uri))
    return [(run["offset"], run["length"], run["type"]) for run in told]


def content(uri: str, folder: Path) -> bytes:
    copy = folder / "content.img"
    copy.unlink(missing_ok=True)
    good("nbdcopy", uri, copy)
    return copy.read_bytes()


@pytest.fixture(scope="session")
def file_system(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder with files, and an ext4 image of 64 MiB that holds the same."""
    files = tmp_path_factory.mktemp("files")
    (files / "below").mkdir()
    for number in range(40):
        data = b"".join(hashlib.sha256(b"%d/%d" % (number, piece)).digest() for piece in range(number * 100))
        (files / ("below" if number % 2 else "") / f"file{number}").write_bytes(data)
    image = tmp_path_factory.mktemp("image") / "fs.img"
    with image.open("wb") as new:
        new.truncate(64 * MIB)
    good("mkfs.ext4", "-q", "-E", "root_owner=0:0", "-d", files, image)
    return files, image


def test_nbdinfo_lists_every_lun_with_its_size_and_its_abilities(quickstart: RigUp) -> None:
    found = exports(quickstart.uri("a", 0))
    assert {name: (each["export-size"], each["is_read_only"]) for name, each in found.items()} == {
        "lun0": (64 * MIB, False),
        "lun1": (64 * MIB, True),
        "lun2": (32 * MIB, False),
    }
    assert found["lun0"]["description"] == "hwvirt controller a, LUN 0, redirect"
    for export in found.values():
        assert export["contexts"] == ["base:allocation", "hwvirt:residency"]
        assert (export["block_size_minimum"], export["block_size_maximum"]) == (BLOCK, 32 * MIB)
        assert export["can_flush"]
        assert export["can_multi_conn"]
    assert list(exports(quickstart.uri("b", 0))) == ["lun0"]


def test_description_of_up_is_what_the_exports_are(quickstart: RigUp) -> None:
    assert [(lun["controller"], lun["lun"], lun["mode"]) for lun in quickstart.told["luns"]] == [
        ("a", 0, "redirect"),
        ("a", 1, "frozen"),
        ("a", 2, "forward"),
        ("b", 0, "own"),
    ]
    for lun in quickstart.told["luns"]:
        (told,) = json.loads(good("nbdinfo", "--json", lun["nbd"]))["exports"]
        assert told["export-size"] == lun["blocks"] * lun["block_bytes"]


def test_map_tells_which_blocks_are_redirected(redirecting: RigUp) -> None:
    uri = redirecting.uri("a", 0)
    assert block_map(uri, "hwvirt:residency") == [(0, 64 * MIB, 0)]
    assert block_map(uri, "base:allocation") == [(0, 64 * MIB, 0)]
    qemu_io(uri, "write -P 1 1M 64k", "write -P 2 8M 4k", "discard 2M 128k", f"write -P 3 {64 * MIB - BLOCK} 4k")
    assert block_map(uri, "hwvirt:residency") == [
        (0, MIB, 0),
        (MIB, 64 << 10, 1),
        (MIB + (64 << 10), MIB - (64 << 10), 0),
        (2 * MIB, 128 << 10, 2),
        (2 * MIB + (128 << 10), 6 * MIB - (128 << 10), 0),
        (8 * MIB, BLOCK, 1),
        (8 * MIB + BLOCK, 56 * MIB - 2 * BLOCK, 0),
        (64 * MIB - BLOCK, BLOCK, 1),
    ]
    holes = [run for run in block_map(uri, "base:allocation") if run[2]]
    assert holes == [(2 * MIB, 128 << 10, 3)]
    assert "first" not in good("nbdinfo", "--map", uri)


@pytest.mark.parametrize("lun", [0, 2])
def test_file_system_goes_in_comes_out_and_is_clean(
    redirecting: RigUp, file_system: tuple[Path, Path], tmp_path: Path, lun: int
) -> None:
    files, image = file_system
    if lun == 2:  # forwarded to b, which has 32 MiB
        image = tmp_path / "small.img"
        with image.open("wb") as new:
            new.truncate(32 * MIB)
        good("mkfs.ext4", "-q", "-E", "root_owner=0:0", "-d", files, image)
    uri, copy, unpacked = redirecting.uri("a", lun), tmp_path / "copy.img", tmp_path / "unpacked"
    good("nbdcopy", "--flush", image, uri)
    good("nbdcopy", uri, copy)
    assert copy.read_bytes() == image.read_bytes()
    good("e2fsck", "-fn", copy)
    unpacked.mkdir()
    good("debugfs", "-R", f"rdump / {unpacked}", copy)
    (unpacked / "lost+found").rmdir()
    assert tree(unpacked) == tree(files)
    good("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri)


def test_sparse_image_that_is_to_be_allocated_goes_in_whole(redirecting: RigUp, tmp_path: Path) -> None:
    """nbdcopy --allocated asks for the zeroes of a hole, however long, without one (NBD_CMD_FLAG_NO_HOLE)."""
    uri, image, copy = redirecting.uri("a", 0), tmp_path / "sparse.img", tmp_path / "copy.img"
    with image.open("wb") as new:
        new.truncate(64 * MIB)
        new.write(b"begin" * 1000)
    good("nbdcopy", "--flush", "--allocated", image, uri)
    assert block_map(uri, "base:allocation") == [(0, 64 * MIB, 0)]
    assert block_map(uri, "hwvirt:residency") == [(0, 64 * MIB, 1)]
    good("nbdcopy", uri, copy)
    assert copy.read_bytes() == image.read_bytes()


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_qemu_img_converts_in_and_out_and_finds_differences(
    redirecting: RigUp, file_system: tuple[Path, Path], tmp_path: Path
) -> None:
    _, image = file_system
    uri, copy = redirecting.uri("a", 0), tmp_path / "copy.qcow2"
    good("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", image, uri)
    good("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, copy)
    assert "Images are identical." in good("qemu-img", "compare", "-f", "qcow2", "-F", "raw", copy, image)
    qemu_io(uri, "write -P 170 20M 4k")
    differ = run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri)
    assert (differ.code, differ.out) == (1, f"Content mismatch at offset {20 * MIB}!\n")


def test_zeroes_discards_and_flushes_of_qemu_io_are_what_they_say(redirecting: RigUp) -> None:
    uri = redirecting.uri("a", 0)
    qemu_io(
        uri,
        "write -P 17 0 256k",
        "write -z 64k 64k",
        "write -z -u 128k 64k",
        "discard 192k 64k",
        "write -f -P 18 252k 4k",
        "flush",
        "read -P 17 0 64k",
        "read -P 0 64k 188k",
        "read -P 18 252k 4k",
    )
    qemu_io(uri, "read -P 17 0 64k", "read -P 0 64k 188k", "read -P 18 252k 4k")


@pytest.mark.parametrize(
    ("controller", "lun"), [("a", 0), ("a", 2), ("b", 0)], ids=["redirecting", "forwarded", "own"]
)
def test_fio_reads_back_what_it_wrote_at_depth_32(
    redirecting: RigUp, tmp_path: Path, controller: str, lun: int
) -> None:
    job = ("--rw=randrw", "--verify=crc32c", "--iodepth=32", "--bsrange=4k-64k", "--size=8M", "--randseed=7")
    (told,) = fio(tmp_path, (f"--uri={redirecting.uri(controller, lun)}", *job))
    assert told["write"]["io_bytes"] > MIB
    assert told["read"]["io_bytes"] >= told["write"]["io_bytes"]  # it verifies by reading
    if (controller, lun) == ("a", 0):
        assert redirecting.status("a")["luns"][0]["mapped_blocks"] > 256


def test_fio_on_both_paths_of_one_lun_at_once_disturbs_nobody(quickstart: RigUp, tmp_path: Path) -> None:
    job = ("--rw=randrw", "--verify=crc32c", "--iodepth=32", "--bs=4k", "--size=4M")
    through_a = (f"--uri={quickstart.uri('a', 2)}", *job, "--randseed=1")
    through_b = (f"--uri={quickstart.uri('b', 0)}", *job, "--offset=16M", "--randseed=2")
    for told in fio(tmp_path, through_a, through_b):
        assert told["write"]["io_bytes"] > MIB


def test_what_goes_in_at_one_door_comes_out_at_the_other_without_a_flush(quickstart: RigUp) -> None:
    through_a, through_b = quickstart.uri("a", 2), quickstart.uri("b", 0)
    qemu_io(through_a, "write -P 33 24M 1M")
    qemu_io(through_b, "read -P 33 24M 1M", "write -P 34 24M 512k", "discard 24M 64k")
    qemu_io(through_a, "read -P 0 24M 64k", "read -P 34 24640k 448k", "read -P 33 25088k 512k")


def test_frozen_lun_refuses_writers_and_stays_as_it_was(
    redirecting: RigUp, file_system: tuple[Path, Path], tmp_path: Path
) -> None:
    live, frozen = redirecting.uri("a", 0), redirecting.uri("a", 1)
    before = content(frozen, tmp_path)
    assert content(live, tmp_path) == before
    good("nbdcopy", file_system[1], live)
    job = ("--name=w", "--ioengine=nbd", f"--uri={frozen}", "--rw=write", "--bs=4k", "--size=64k")
    writing = run("fio", *job, cwd=tmp_path)
    assert writing.code != 0
    assert "Operation not permitted" in writing.out + writing.err
    copying = run("nbdcopy", file_system[1], frozen)
    assert copying.code != 0
    assert "read-only" in copying.err
    refused = run("qemu-io", "-f", "raw", "-c", "write 0 4k", frozen)
    assert refused.code != 0
    assert "Permission denied" in refused.err
    assert content(frozen, tmp_path) == before
    assert run("qemu-img", "compare", "-f", "raw", "-F", "raw", live, frozen).code == 1
