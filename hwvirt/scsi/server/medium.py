"""Commands that need the medium, other than reads and writes: a stopped unit refuses them.

Ref: T10 SBC-4 5 (COMPARE AND WRITE, GET LBA STATUS, SYNCHRONIZE CACHE, UNMAP, VERIFY, WRITE SAME).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from types import MappingProxyType
from typing import Final

from hwvirt.buffers import Buffer, joined
from hwvirt.scsi import opcodes
from hwvirt.scsi.parameters import LbaStatus, decode_unmap_list, encode_lba_status
from hwvirt.scsi.sense import (
    INVALID_FIELD_IN_PARAMETER_LIST,
    MISCOMPARE,
    PARAMETER_LIST_LENGTH_ERROR,
    CheckCondition,
)
from hwvirt.scsi.server.unit import Handler, Request, Unit, refuse_if
from hwvirt.scsi.volume import Durability, Extent, Residency, Write

__all__ = ["ALONE", "MEDIUM"]

_CHUNK_BYTES = 1 << 20
_STATUS_BLOCKS = 1 << 20
_NO_DATA, _ALL_DATA, _ONE_BLOCK = 0, 1, 3


async def _synchronize_cache(unit: Unit, request: Request) -> bytes:
    """IMMED changes nothing: a completion that comes late is a good one."""
    unit.refuse_outside(request.fields.lba, request.fields.blocks)
    _raise_first([await unit.volume.flush()])
    return b""


async def _verify(unit: Unit, request: Request) -> bytes:
    fields = request.fields
    refuse_if(fields.protect or fields.bytchk == 2 or fields.blocks > unit.limits.max_transfer)
    unit.refuse_outside(fields.lba, fields.blocks)
    block_bytes = unit.volume.block_bytes
    expected = request.take({_NO_DATA: 0, _ALL_DATA: fields.blocks, _ONE_BLOCK: 1}[fields.bytchk] * block_bytes)
    offset = 0
    for chunk in _chunks(fields.lba, fields.blocks, block_bytes):
        found = await _read(unit, chunk)
        end = offset + len(found)
        if fields.bytchk == _ALL_DATA and found != expected[offset:end]:
            raise CheckCondition(MISCOMPARE)
        if fields.bytchk == _ONE_BLOCK and found != bytes(expected) * chunk.blocks:
            raise CheckCondition(MISCOMPARE)
        offset = end
    return b""


async def _unmap(unit: Unit, request: Request) -> bytes:
    fields = request.fields
    refuse_if(fields.anchor)
    unit.refuse_if_protected()
    if not fields.parameter_list:
        return b""
    try:
        extents = decode_unmap_list(request.take(fields.parameter_list))
    except ValueError as error:
        raise CheckCondition(PARAMETER_LIST_LENGTH_ERROR) from error
    if len(extents) > unit.limits.max_unmap_extents or sum(blocks for _, blocks in extents) > unit.limits.max_unmap:
        raise CheckCondition(INVALID_FIELD_IN_PARAMETER_LIST)
    for lba, blocks in extents:
        unit.refuse_outside(lba, blocks)
    extents = [extent for extent in extents if extent.blocks]
    if extents:
        _raise_first(await unit.volume.unmap(extents))
    return b""


async def _write_same(unit: Unit, request: Request) -> bytes:
    """The unit unmaps only what then reads as the block says: zeroes."""
    fields = request.fields
    refuse_if(fields.protect or fields.anchor or not 0 < fields.blocks <= unit.limits.max_write_same)
    unit.refuse_outside(fields.lba, fields.blocks)
    unit.refuse_if_protected()
    block_bytes = unit.volume.block_bytes
    block = bytes(block_bytes if fields.get("ndob") else request.take(block_bytes))
    if fields.unmap and not any(block):
        _raise_first(await unit.volume.unmap([Extent(fields.lba, fields.blocks)]))
        return b""
    data = memoryview(block * min(fields.blocks, _CHUNK_BYTES // block_bytes))
    for lba, blocks in _chunks(fields.lba, fields.blocks, block_bytes):
        _raise_first(await unit.volume.write([Write(lba, (data[: blocks * block_bytes],))]))
    return b""


async def _compare_and_write(unit: Unit, request: Request) -> bytes:
    """INFORMATION of a miscompare is the offset of the first byte that differs."""
    fields = request.fields
    refuse_if(fields.protect or fields.blocks > unit.limits.max_compare_and_write)
    unit.refuse_outside(fields.lba, fields.blocks)
    unit.refuse_if_protected()
    size = fields.blocks * unit.volume.block_bytes
    data = request.take(2 * size)
    if not fields.blocks:
        return b""
    found = await _read(unit, Extent(fields.lba, fields.blocks))
    if found != data[:size]:
        raise CheckCondition(MISCOMPARE.at(_first_difference(found, data[:size])))
    durability = Durability.DURABLE if fields.fua else Durability.VOLATILE
    _raise_first(await unit.volume.write([Write(fields.lba, (data[size:],))], durability))
    return b""


async def _get_lba_status(unit: Unit, request: Request) -> bytes:
    """As many runs as the allocation length has room for, of a bounded part of the medium."""
    fields = request.fields
    refuse_if(fields.report_type)
    unit.refuse_outside(fields.lba, 1)
    blocks = min(unit.volume.blocks - fields.lba, _STATUS_BLOCKS)
    residency = unit.volume.residency(Extent(fields.lba, blocks))
    runs = [
        (sum(blocks for blocks, _ in group), LbaStatus.DEALLOCATED if is_zero else LbaStatus.MAPPED)
        for is_zero, group in groupby(residency, lambda run: run[1] is Residency.ZERO)
    ]
    return encode_lba_status(fields.lba, runs)


async def _read(unit: Unit, extent: Extent) -> Buffer:
    (result,) = await unit.volume.read([extent])
    if isinstance(result, CheckCondition):
        raise result
    return joined(result)


def _chunks(lba: int, blocks: int, block_bytes: int) -> Iterator[Extent]:
    step = _CHUNK_BYTES // block_bytes
    for start in range(lba, lba + blocks, step):
        yield Extent(start, min(step, lba + blocks - start))


def _raise_first(results: Sequence[CheckCondition | None]) -> None:
    for result in results:
        if result is not None:
            raise result


def _first_difference(one: Buffer, other: Buffer) -> int:
    return next(offset for offset, (left, right) in enumerate(zip(one, other, strict=True)) if left != right)


MEDIUM: Final[Mapping[opcodes.Cdb, Handler]] = MappingProxyType(
    {
        opcodes.SYNCHRONIZE_CACHE_10: _synchronize_cache,
        opcodes.SYNCHRONIZE_CACHE_16: _synchronize_cache,
        opcodes.VERIFY_10: _verify,
        opcodes.VERIFY_16: _verify,
        opcodes.UNMAP: _unmap,
        opcodes.WRITE_SAME_10: _write_same,
        opcodes.WRITE_SAME_16: _write_same,
        opcodes.COMPARE_AND_WRITE: _compare_and_write,
        opcodes.GET_LBA_STATUS: _get_lba_status,
    }
)
ALONE: Final = frozenset({opcodes.COMPARE_AND_WRITE})
"""Commands that read and then write: nothing else may happen in between."""
