"""What the disk tests share: results that must be fine or must be errors, and the bytearray model of a volume."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from hypothesis import strategies as st

from hwvirt.buffers import Pieces, joined
from hwvirt.scsi.sense import CheckCondition
from hwvirt.scsi.status import SenseKey
from hwvirt.scsi.volume import Durability, Extent, Volume, Write

T = TypeVar("T")


def run_without_suspending(coroutine: Coroutine[Any, Any, T]) -> T:
    """The coroutine's result; fails when it waits for anything."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise AssertionError("the coroutine suspended")


def fine(result: T | CheckCondition) -> T:
    assert not isinstance(result, CheckCondition), result.sense
    return result


def condition(result: object) -> tuple[SenseKey, int, int, int | None]:
    assert isinstance(result, CheckCondition), result
    return (result.sense.key, result.sense.asc, result.sense.ascq, result.sense.information)


def contents(results: Sequence[Pieces | CheckCondition]) -> list[bytes]:
    return [bytes(joined(fine(result))) if fine(result) else b"" for result in results]


@st.composite
def extents(draw: st.DrawFn, blocks: int) -> Extent:
    lba = draw(st.integers(0, blocks - 1))
    return Extent(lba, draw(st.integers(0, min(12, blocks - lba))))


@st.composite
def neighbourly(draw: st.DrawFn, blocks: int) -> list[Extent]:
    """Batches in which about half of the extents begin where the one before ended."""
    batch: list[Extent] = []
    for _ in range(draw(st.integers(1, 6))):
        extent = draw(extents(blocks))
        joins: bool = draw(st.booleans())
        if batch and joins:
            lba = sum(batch[-1])
            extent = Extent(lba, min(extent.blocks, blocks - lba))
        batch.append(extent)
    return batch


steps = st.sampled_from(["read", "write", "write durable", "unmap", "flush"])


class Model:
    """A bytearray beside a volume: every step is done to both, every read is compared."""

    def __init__(self, volume: Volume, seed: int = 0) -> None:
        self.volume = volume
        self.data = bytearray(volume.blocks * volume.block_bytes)
        self.version = seed
        self.run: Callable[[Coroutine[Any, Any, Any]], Any] = run_without_suspending

    def step(self, what: str, batch: list[Extent]) -> None:
        if what == "read":
            self.compare(batch)
        elif what.startswith("write"):
            durability = Durability.DURABLE if what.endswith("durable") else Durability.VOLATILE
            writes = [Write(extent.lba, self.fresh(extent)) for extent in batch]
            for result in self.run(self.volume.write(writes, durability)):
                fine(result)
            for write in writes:
                self.put(write.lba, b"".join(write.data))
        elif what == "unmap":
            for result in self.run(self.volume.unmap(batch)):
                fine(result)
            for extent in batch:
                self.put(extent.lba, bytes(extent.blocks * self.volume.block_bytes))
        else:
            assert self.run(self.volume.flush()) is None

    def fresh(self, extent: Extent) -> Pieces:
        """New data for the extent, in uneven pieces."""
        self.version += 1
        size = self.volume.block_bytes
        data = b"".join(
            b"%08d %08d " % (lba, self.version) * (size // 18 + 1) for lba in range(extent.lba, extent.lba + extent.blocks)
        )[: extent.blocks * size]
        cut = (self.version * 37) % (len(data) + 1)
        return (data[:cut], memoryview(data)[cut:])

    def put(self, lba: int, data: bytes) -> None:
        offset = lba * self.volume.block_bytes
        self.data[offset : offset + len(data)] = data

    def compare(self, batch: list[Extent]) -> None:
        size = self.volume.block_bytes
        expected = [bytes(self.data[lba * size : (lba + blocks) * size]) for lba, blocks in batch]
        assert contents(self.run(self.volume.read(batch))) == expected

    def compare_all(self) -> None:
        self.compare([Extent(0, self.volume.blocks)])
