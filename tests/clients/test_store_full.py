"""The second disk is full: writes fail with a defined error, and nothing that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from hwvirt.host.initiator import Answer, Op
from hwvirt.host.nbd.client import NbdInitiator

from .kit import END_S, RigUp, qemu_io, rig_up, run

BLOCK = 4096
STORE_BLOCKS = (8 << 20) // BLOCK
BLOCKS = (32 << 20) // BLOCK
RIG = """\
rig: full
disks:
  first:  {loop: {size: 32MiB}}
  second: {loop: {size: 16MiB}}
controllers:
  a: {disk: first, luns: {0: redirect, 1: frozen}}
  b: {disk: second, luns: {0: {own: {size: 8MiB}}}, store: {size: 8MiB, overcommit: allow}}
scenarios:
  - {name: nothing, steps: [{judge: all}]}
"""


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RigUp]:
    path = tmp_path_factory.mktemp("full") / "full.yaml"
    path.write_text(RIG)
    with rig_up(path) as up:
        yield up


@pytest.fixture
def empty(rig: RigUp) -> RigUp:
    rig.begin_anew()
    return rig


def version(lba: int, number: int) -> bytes:
    return (b"%08d/%03d;" % (lba, number) * (BLOCK // 13 + 1))[:BLOCK]


class Host:
    """Writes and reads single blocks, many at once, and tells how each ended."""

    def __init__(self, path: NbdInitiator) -> None:
        self._path = path

    async def ask(self, op: Op, lba: int, data: bytes = b"") -> Answer:
        answered: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._path.submit(op, lba, 1, (data,) if data else (), answered.set_result)
        return await answered

    async def write(self, blocks: dict[int, bytes]) -> dict[int, int]:
        """The errno of each block's write."""
        answers = await asyncio.gather(*(self.ask(Op.WRITE, lba, data) for lba, data in blocks.items()))
        return {lba: answer.error for lba, answer in zip(blocks, answers, strict=True)}

    async def read(self, lba: int) -> bytes:
        answer = await self.ask(Op.READ, lba)
        assert answer.error == 0
        return b"".join(answer.data)


def play(rig: RigUp, story: Callable[[Host], Awaitable[None]]) -> None:
    """The story of a host of LUN 0."""

    async def run() -> None:
        async with asyncio.timeout(END_S), host_of(rig) as host:
            await story(host)

    uvloop.run(run())


@asynccontextmanager
async def host_of(rig: RigUp) -> AsyncIterator[Host]:
    path = await NbdInitiator.connect("127.0.0.1", rig.port("a", 0), "lun0")
    try:
        yield Host(path)
    finally:
        await path.close()


async def fill_until_full(host: Host) -> tuple[dict[int, bytes], dict[int, int]]:
    """Writes one block after the other until the store is full: what was acknowledged, and how the others failed."""
    acknowledged: dict[int, bytes] = {}
    failed: dict[int, int] = {}
    for start in range(0, BLOCKS, 64):
        blocks = {lba: version(lba, 1) for lba in range(start, start + 64)}
        ended = await host.write(blocks)
        failed |= {lba: error for lba, error in ended.items() if error}
        acknowledged |= {lba: blocks[lba] for lba, error in ended.items() if not error}
        if failed:
            return acknowledged, failed
    raise AssertionError("the store was never full")


def test_what_was_acknowledged_before_the_store_was_full_is_there(empty: RigUp) -> None:
    async def story(host: Host) -> None:
        acknowledged, failed = await fill_until_full(host)
        assert set(failed.values()) == {errno.ENOSPC}
        assert len(acknowledged) == STORE_BLOCKS
        # No room for a second version of a block either; the first one stays.
        again = await host.write({0: version(0, 2), 1: version(1, 2)})
        assert set(again.values()) == {errno.ENOSPC}
        assert (await host.ask(Op.FLUSH, 0)).error == 0
        for lba, data in acknowledged.items():
            assert await host.read(lba) == data
        for lba in failed:
            assert await host.read(lba) == bytes(BLOCK)  # the original
        # Unmapping needs no room, and makes some.
        assert (await host.ask(Op.UNMAP, 5)).error == 0
        assert await host.read(5) == bytes(BLOCK)
        assert (await host.write({BLOCKS - 1: version(BLOCKS - 1, 1)})) == {BLOCKS - 1: 0}
        assert await host.read(BLOCKS - 1) == version(BLOCKS - 1, 1)

    play(empty, story)
    assert empty.status("b")["store"]["free"] == 0


def test_writing_the_same_blocks_again_never_runs_out_of_room(empty: RigUp) -> None:
    async def story(host: Host) -> None:
        for number in range(12):  # twelve times half of the store
            blocks = {lba: version(lba, number) for lba in range(STORE_BLOCKS // 2)}
            assert set((await host.write(blocks)).values()) == {0}
        for lba in range(0, STORE_BLOCKS // 2, 7):
            assert await host.read(lba) == version(lba, 11)

    play(empty, story)


@pytest.mark.parametrize("verb", ["discard", "commit"])
def test_after_a_discard_or_a_commit_there_is_room_again(empty: RigUp, verb: str) -> None:
    async def story(host: Host) -> None:
        before = await host.read(7)
        acknowledged, _ = await fill_until_full(host)
        await asyncio.to_thread(empty.ctl, "a", verb, *(["wait=true"] if verb == "commit" else []))
        assert empty.status("b")["store"]["free"] == STORE_BLOCKS
        assert await host.read(7) == (acknowledged[7] if verb == "commit" else before)
        await asyncio.to_thread(empty.ctl, "a", "redirect")
        ended = await host.write({lba: version(lba, 3) for lba in range(1024)})
        assert set(ended.values()) == {0}
        assert await host.read(1023) == version(1023, 3)

    play(empty, story)


def test_clients_of_others_are_told_that_there_is_no_space(empty: RigUp, tmp_path: Path) -> None:
    image = tmp_path / "big.img"
    image.write_bytes(b"x" * (16 << 20))
    copying = run("nbdcopy", image, empty.uri("a", 0))
    assert copying.code != 0
    assert "No space left on device" in copying.err
    writing = run("qemu-io", "-f", "raw", "-c", "write -P 1 20M 1M", empty.uri("a", 0))
    assert "write failed: No space left on device" in writing.out + writing.err
    qemu_io(empty.uri("b", 0), "write -P 1 0 8M", "read -P 1 0 8M")  # b's own LUN has its own place
