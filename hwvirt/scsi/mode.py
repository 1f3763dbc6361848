"""Mode pages: caching and control, with the header and block descriptor before them.

Ref: T10 SPC-4 7.5 (mode parameters, control page), SBC-4 6.5 (block descriptors, caching page).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from hwvirt.buffers import Buffer
from hwvirt.scsi.layout import Bits, Int, Layout
from hwvirt.scsi.sense import SenseFormat
from hwvirt.scsi.volume import Access

__all__ = [
    "ALL_PAGES",
    "ALL_SUBPAGES",
    "ModeFacts",
    "PageControl",
    "decode_mode_10",
    "encode_descriptor",
    "encode_mode_6",
    "encode_mode_10",
    "encode_pages",
]


class PageControl(IntEnum):
    """Which values of a page are asked for. SPC-4 6, MODE SENSE."""

    CURRENT = 0
    CHANGEABLE = 1
    DEFAULT = 2
    SAVED = 3


@dataclass(frozen=True, slots=True)
class ModeFacts:
    """What an initiator wants to know; `volatile_cache` (WCE) is None where the disk did not send the caching page."""

    write_protected: bool
    fua: bool
    volatile_cache: bool | None


ALL_PAGES = 0x3F
ALL_SUBPAGES = 0xFF
_CACHING, _CONTROL = 0x08, 0x0A
_UNRESTRICTED_REORDERING = 1

_HEADER_6 = Layout(
    "mode parameter header(6)",
    4,
    Int("data_length", 0),
    Int("medium_type", 1),
    Bits("write_protected", 2, 7),
    Bits("dpofua", 2, 4),
    Int("descriptor_length", 3),
)
_HEADER_10 = Layout(
    "mode parameter header(10)",
    8,
    Int("data_length", 0, 2),
    Int("medium_type", 2),
    Bits("write_protected", 3, 7),
    Bits("dpofua", 3, 4),
    Bits("long_lba", 4, 0),
    Int("descriptor_length", 6, 2),
)
_SHORT_DESCRIPTOR = Layout("short LBA mode parameter block descriptor", 8, Int("blocks", 0, 4), Int("block_bytes", 5, 3))
_MOST_BLOCKS_SHORT = 0xFFFFFFFF

_PAGE_CODE = Bits("page", 0, 5, 0)
_PAGE_LENGTH = Int("length", 1)
_CACHING_PAGE = Layout("caching mode page", 20, _PAGE_CODE, _PAGE_LENGTH, Bits("wce", 2, 2), Bits("rcd", 2, 0))
_CONTROL_PAGE = Layout(
    "control mode page", 12, _PAGE_CODE, _PAGE_LENGTH, Bits("d_sense", 2, 2), Bits("reordering", 3, 7, 4), Bits("swp", 4, 3)
)


def encode_pages(page: int, control: PageControl, sense_format: SenseFormat) -> bytes | None:
    """The page, or all of them for 3Fh; None for one that there is not. The cache is volatile; nothing can be changed."""
    caching = {"wce": 1}
    controls = {"d_sense": int(sense_format is SenseFormat.DESCRIPTOR), "reordering": _UNRESTRICTED_REORDERING}
    pages = {
        code: layout.encode(page=code, length=layout.size - 2, **({} if control is PageControl.CHANGEABLE else values))
        for code, layout, values in ((_CACHING, _CACHING_PAGE, caching), (_CONTROL, _CONTROL_PAGE, controls))
    }
    return b"".join(pages.values()) if page == ALL_PAGES else pages.get(page)


def encode_descriptor(blocks: int, block_bytes: int) -> bytes:
    """The short block descriptor; a unit with more blocks than it can say has FFFFFFFFh."""
    return _SHORT_DESCRIPTOR.encode(blocks=min(blocks, _MOST_BLOCKS_SHORT), block_bytes=block_bytes)


def encode_mode_6(pages: bytes, descriptor: bytes, access: Access) -> bytes:
    """Mode data as MODE SENSE(6) sends it."""
    return _mode_data(_HEADER_6, 1, pages, descriptor, access)


def encode_mode_10(pages: bytes, descriptor: bytes, access: Access) -> bytes:
    """Mode data as MODE SENSE(10) sends it."""
    return _mode_data(_HEADER_10, 2, pages, descriptor, access)


def decode_mode_10(data: Buffer) -> ModeFacts:
    """From what MODE SENSE(10) sent. Raises ValueError for less than a header."""
    header = _HEADER_10.decode(data)
    pages = data[_HEADER_10.size + header.descriptor_length : header.data_length + 2]
    volatile_cache = None
    while len(pages) >= 2:
        code, subpage_format = pages[0] & 0x3F, pages[0] & 0x40
        size = 4 + int.from_bytes(pages[2:4], "big") if subpage_format else 2 + pages[1]
        if code == _CACHING and not subpage_format:
            volatile_cache = bool(_CACHING_PAGE.decode(bytes(pages).ljust(_CACHING_PAGE.size, b"\0")).wce)
        pages = pages[size:]
    return ModeFacts(bool(header.write_protected), bool(header.dpofua), volatile_cache)


def _mode_data(header: Layout, length_bytes: int, pages: bytes, descriptor: bytes, access: Access) -> bytes:
    size = header.size + len(descriptor) + len(pages)
    write_protected = int(access is Access.READ_ONLY)
    front = header.encode(
        data_length=size - length_bytes, write_protected=write_protected, dpofua=1, descriptor_length=len(descriptor)
    )
    return front + descriptor + pages
