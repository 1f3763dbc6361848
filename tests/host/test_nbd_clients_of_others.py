"""Clients of others on our server, with the real device server behind it."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from hwvirt.host.nbd.export import Export
from hwvirt.scsi.server.device import DeviceServer
from tests.host.raw_client import serving
from tests.scsi.memory_volume import MemoryVolume
from tests.scsi.scsikit import IDENTITY

BLOCK = 4096
BLOCKS = 4096
SIZE = BLOCKS * BLOCK
SECONDS = 30


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = [program for program in programs if shutil.which(program) is None]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)} (tools/setup installs them)")


async def run(*words: str | Path, code: int = 0, folder: Path | None = None) -> str:
    """What the program says when it ends as it should."""
    process = await asyncio.create_subprocess_exec(
        *map(str, words), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, cwd=folder
    )
    try:
        async with asyncio.timeout(SECONDS):
            said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == code, said.decode()
    return said.decode()


def served(scenario: Callable[[MemoryVolume, str], Awaitable[None]]) -> None:
    """Plays the scenario with a volume and the URI under which it is served."""

    async def play() -> None:
        volume, small = MemoryVolume(BLOCKS), MemoryVolume(200, 512)
        exports = [
            Export("disk", DeviceServer(volume, IDENTITY), BLOCKS, BLOCK, "4 KiB blocks", False, volume.residency),
            Export("small", DeviceServer(small, IDENTITY), 200, 512, "512 B blocks", True, small.residency),
        ]
        async with serving(exports) as server:
            await scenario(volume, f"nbd://127.0.0.1:{server.port}/disk")

    uvloop.run(play())


@needs("nbdinfo")
def test_nbdinfo_lists_the_exports_and_their_abilities() -> None:
    async def scenario(volume: MemoryVolume, uri: str) -> None:
        disk, small = json.loads(await run("nbdinfo", "--list", "--json", uri))["exports"]
        assert (disk["export-name"], disk["description"], disk["export-size"]) == ("disk", "4 KiB blocks", SIZE)
        assert (small["export-name"], small["is_read_only"], small["export-size"]) == ("small", True, 200 * 512)
        assert disk["contexts"] == ["base:allocation", "hwvirt:residency"]
        sizes = [disk[f"block_size_{which}"] for which in ("minimum", "preferred", "maximum")]
        assert sizes == [BLOCK, BLOCK, 32 << 20]
        abilities = ("can_df", "can_fast_zero", "can_flush", "can_fua", "can_multi_conn", "can_trim", "can_zero")
        assert all(disk[ability] for ability in abilities)
        alone = json.loads(await run("nbdinfo", "--json", uri))
        assert (alone["protocol"], alone["structured"]) == ("newstyle-fixed", True)

    served(scenario)


@needs("nbdinfo")
def test_nbdinfo_maps_allocation_and_residency() -> None:
    async def scenario(volume: MemoryVolume, uri: str) -> None:
        volume.unmapped.update(range(16, 32))
        runs = json.loads(await run("nbdinfo", "--json", "--map=hwvirt:residency", uri))
        assert [(run["offset"] // BLOCK, run["length"] // BLOCK, run["type"]) for run in runs] == [
            (0, 16, 0),
            (16, 16, 2),
            (32, BLOCKS - 32, 0),
        ]
        runs = json.loads(await run("nbdinfo", "--json", "--map=base:allocation", uri))
        assert [(run["offset"] // BLOCK, run["type"]) for run in runs] == [(0, 0), (16, 3), (32, 0)]

    served(scenario)


@needs("nbdcopy")
def test_nbdcopy_carries_data_in_and_out(tmp_path: Path) -> None:
    async def scenario(volume: MemoryVolume, uri: str) -> None:
        before, after = tmp_path / "before", tmp_path / "after"
        before.write_bytes(random.Random(1).randbytes(SIZE // 2) + bytes(SIZE // 4) + random.Random(2).randbytes(SIZE // 4))
        await run("nbdcopy", "--flush", before, uri)
        assert volume.content == before.read_bytes()
        assert ("flush", 0) in volume.calls
        await run("nbdcopy", uri, after)
        assert after.read_bytes() == volume.content

    served(scenario)


@needs("qemu-img")
def test_qemu_img_sees_compares_and_maps(tmp_path: Path) -> None:
    async def scenario(volume: MemoryVolume, uri: str) -> None:
        volume.content[:] = random.Random(3).randbytes(SIZE)
        image = tmp_path / "image"
        image.write_bytes(volume.content)
        information = json.loads(await run("qemu-img", "info", "--output=json", uri))
        assert (information["virtual-size"], information["format"]) == (SIZE, "raw")
        assert "identical" in await run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri)
        volume.content[BLOCK] ^= 1
        assert "offset 4096" in await run("qemu-img", "compare", "-f", "raw", "-F", "raw", image, uri, code=1)
        volume.unmapped.update(range(256, 512))
        runs: list[dict[str, Any]] = json.loads(await run("qemu-img", "map", "--output=json", "-f", "raw", uri))
        assert [(run["start"] // BLOCK, run["length"] // BLOCK, run["zero"]) for run in runs] == [
            (0, 256, False),
            (256, 256, True),
            (512, BLOCKS - 512, False),
        ]

    served(scenario)


@needs("qemu-io")
def test_qemu_io_writes_zeroes_discards_and_flushes() -> None:
    script = (
        "write -P 7 0 64k",
        "read -P 7 0 64k",
        "write -z 4k 8k",
        "read -P 0 4k 8k",
        "write -z -u 1M 1M",
        "discard 32k 4k",
        "write -f -P 9 100 20",  # within a block: the client reads, changes and writes the whole block
        "read -P 9 100 20",
        "read -P 7 120 3k",
        "flush",
    )

    async def scenario(volume: MemoryVolume, uri: str) -> None:
        said = await run("qemu-io", "-f", "raw", *(word for command in script for word in ("-c", command)), uri)
        assert "failed" not in said
        assert volume.bytes_of(0)[100:120] == b"\x09" * 20
        assert {8, *range(256, 512)} <= volume.unmapped
        assert {1, 2}.isdisjoint(volume.unmapped), "zeroes without a hole are written"
        assert ("write durable", 1) in volume.calls

    served(scenario)


@needs("qemu-io")
def test_qemu_io_may_not_write_a_read_only_export() -> None:
    async def scenario(volume: MemoryVolume, uri: str) -> None:
        small = uri.replace("/disk", "/small")
        assert "Permission denied" in await run("qemu-io", "-f", "raw", "-c", "write 0 512", small, code=1)
        assert "read 512/512" in await run("qemu-io", "-r", "-f", "raw", "-c", "read -P 0 512 512", small)

    served(scenario)


@needs("fio")
def test_fio_verifies_random_reads_and_writes_at_depth_32(tmp_path: Path) -> None:
    async def scenario(volume: MemoryVolume, uri: str) -> None:
        pattern = ("--rw=randrw", "--bsrange=4k-64k", "--ba=4k", "--verify=crc32c", "--iodepth=32", "--fsync=64")
        words = ("fio", "--name=verify", "--ioengine=nbd", f"--uri={uri}", f"--size={SIZE}", "--randseed=5", *pattern)
        said = await run(*words, folder=tmp_path)
        assert "err= 0" in said
        assert any(count > 1 for name, count in volume.calls if name == "write"), "requests flow in batches"

    served(scenario)
