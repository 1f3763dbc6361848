"""Who a logical unit is and what it can do: INQUIRY data and vital product data pages, made and read.

Decoders take what disks send: pages may be shorter or longer than ours; what is missing counts as zero.
Ref: T10 SPC-4 6 (INQUIRY), 7.8 (VPD pages), SBC-4 6 (block VPD pages).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import IntEnum

from hwvirt.buffers import Buffer
from hwvirt.scsi.layout import Bits, Int, Layout, Values

__all__ = [
    "BlockLimits",
    "Identity",
    "Inquiry",
    "Page",
    "Provisioning",
    "decode_inquiry",
    "decode_naa",
    "decode_pages",
    "decode_provisioning",
    "decode_serial",
    "encode_inquiry",
    "encode_page",
]


class Page(IntEnum):
    """Vital product data pages."""

    SUPPORTED_PAGES = 0x00
    UNIT_SERIAL_NUMBER = 0x80
    DEVICE_IDENTIFICATION = 0x83
    BLOCK_LIMITS = 0xB0
    BLOCK_DEVICE_CHARACTERISTICS = 0xB1
    LOGICAL_BLOCK_PROVISIONING = 0xB2


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a logical unit says it is. `naa` is its NAA designator as a number of 64 bits, or 128 for NAA 6.

    Raises ValueError for text that is not printable ASCII or too long, and for a number that is no NAA designator.
    """

    vendor: str
    product: str
    revision: str
    serial: str
    naa: int

    def __post_init__(self) -> None:
        for name, most in (("vendor", 8), ("product", 16), ("revision", 4), ("serial", 252)):
            text: str = getattr(self, name)
            if len(text) > most or not (text.isascii() and text.isprintable()):
                raise ValueError(f"{name} {text!r} is not up to {most} printable ASCII characters")
        if self.naa >> 60 not in (2, 3, 5) and self.naa >> 124 != 6:
            raise ValueError(f"{self.naa:#x} is not an NAA designator")

    @property
    def naa_bytes(self) -> bytes:
        """The NAA designator as it stands on the page."""
        return self.naa.to_bytes(16 if self.naa >> 64 else 8, "big")


@dataclass(frozen=True, slots=True)
class BlockLimits:
    """The block limits page: blocks of one command, and extents of one UNMAP; 0 where the device says nothing."""

    max_compare_and_write: int = 0
    max_transfer: int = 0
    optimal_transfer: int = 0
    max_unmap: int = 0
    max_unmap_extents: int = 0
    optimal_unmap: int = 0
    max_write_same: int = 0

    def encode(self) -> bytes:
        """The page, without its header."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return _BLOCK_LIMITS.encode(wsnz=1, **values)

    @classmethod
    def decode(cls, page: Buffer) -> BlockLimits:
        """The limits on a whole page, header included. Raises ValueError when it is another page."""
        values = _BLOCK_LIMITS.decode(_padded(_content(page, Page.BLOCK_LIMITS), _BLOCK_LIMITS.size))
        return cls(**{field.name: values[field.name] for field in fields(cls)})


@dataclass(frozen=True, slots=True)
class Inquiry:
    """Standard INQUIRY data. `device_type` 0 is a direct access block device; `qualifier` 0 says there is one."""

    qualifier: int
    device_type: int
    vendor: str
    product: str
    revision: str


@dataclass(frozen=True, slots=True)
class Provisioning:
    """How a disk gives blocks back: by UNMAP, by WRITE SAME(16) with UNMAP; whether such blocks read as zeroes."""

    unmap: bool
    write_same_unmap: bool
    reads_zeroes: bool


_SPC_4 = 0x06
_FORMAT = 2
_VERSIONS = (0x00A0, 0x0460, 0x0600)  # SAM-5, SPC-4, SBC-4, no version claimed of each
_STANDARD = Layout(
    "standard INQUIRY data",
    96,
    Bits("qualifier", 0, 7, 5),
    Bits("device_type", 0, 4, 0),
    Int("version", 2),
    Bits("hisup", 3, 4),
    Bits("format", 3, 3, 0),
    Int("additional_length", 4),
    Bits("cmdque", 7, 1),
    Int("vendor", 8, 8),
    Int("product", 16, 16),
    Int("revision", 32, 4),
    *(Int(f"version_{number}", 58 + 2 * number, 2) for number in range(len(_VERSIONS))),
)
_HEADER = Layout("VPD page header", 4, Int("device", 0), Int("page", 1), Int("length", 2, 2))
_DESIGNATOR = Layout(
    "designation descriptor",
    4,
    Bits("protocol", 0, 7, 4),
    Bits("code_set", 0, 3, 0),
    Bits("piv", 1, 7),
    Bits("association", 1, 5, 4),
    Bits("type", 1, 3, 0),
    Int("length", 3),
)
_BLOCK_LIMITS = Layout(
    "block limits page",
    60,
    Bits("wsnz", 0, 0),
    Int("max_compare_and_write", 1),
    Int("granularity", 2, 2),
    Int("max_transfer", 4, 4),
    Int("optimal_transfer", 8, 4),
    Int("max_prefetch", 12, 4),
    Int("max_unmap", 16, 4),
    Int("max_unmap_extents", 20, 4),
    Int("optimal_unmap", 24, 4),
    Int("unmap_alignment", 28, 4),
    Int("max_write_same", 32, 8),
)
_CHARACTERISTICS = Layout("block device characteristics page", 60, Int("rotation_rate", 0, 2))
_PROVISIONING = Layout(
    "logical block provisioning page",
    4,
    Int("threshold_exponent", 0),
    Bits("lbpu", 1, 7),
    Bits("lbpws", 1, 6),
    Bits("lbpws10", 1, 5),
    Bits("lbprz", 1, 4, 2),
    Bits("anc_sup", 1, 1),
    Bits("dp", 1, 0),
    Bits("type", 2, 2, 0),
)
_BINARY, _ASCII = 1, 2
_T10_VENDOR, _NAA = 1, 3
_LOGICAL_UNIT = 0
_NOT_ROTATING = 1
_THIN = 2


def encode_inquiry(identity: Identity) -> bytes:
    """Standard INQUIRY data of a direct access block device."""
    return _STANDARD.encode(
        version=_SPC_4,
        hisup=1,
        format=_FORMAT,
        additional_length=_STANDARD.size - 5,
        cmdque=1,
        vendor=_text(identity.vendor, 8),
        product=_text(identity.product, 16),
        revision=_text(identity.revision, 4),
        **{f"version_{number}": version for number, version in enumerate(_VERSIONS)},
    )


def encode_page(page: int, identity: Identity, limits: BlockLimits) -> bytes | None:
    """A whole VPD page of a thin provisioned unit; None for one that it does not have."""
    match page:
        case Page.SUPPORTED_PAGES:
            content = bytes(Page)
        case Page.UNIT_SERIAL_NUMBER:
            content = identity.serial.encode()
        case Page.DEVICE_IDENTIFICATION:
            name = f"{identity.vendor:<8}{identity.serial}".encode()
            content = _designator(_BINARY, _NAA, identity.naa_bytes) + _designator(_ASCII, _T10_VENDOR, name[:252])
        case Page.BLOCK_LIMITS:
            content = limits.encode()
        case Page.BLOCK_DEVICE_CHARACTERISTICS:
            content = _CHARACTERISTICS.encode(rotation_rate=_NOT_ROTATING)
        case Page.LOGICAL_BLOCK_PROVISIONING:
            content = _PROVISIONING.encode(lbpu=1, lbpws=1, lbpws10=1, lbprz=1, type=_THIN)
        case _:
            return None
    return _HEADER.encode(page=page, length=len(content)) + content


def decode_inquiry(data: Buffer) -> Inquiry:
    """Raises ValueError for less than the 36 bytes that every device sends."""
    if len(data) < 36:
        raise ValueError(f"standard INQUIRY data takes 36 bytes, not {len(data)}")
    values = _STANDARD.decode(_padded(data, _STANDARD.size))
    texts = (_stripped(bytes(data[start:end])) for start, end in ((8, 16), (16, 32), (32, 36)))
    return Inquiry(values.qualifier, values.device_type, *texts)


def decode_pages(page: Buffer) -> frozenset[int]:
    """The pages that a disk has, from page 00h. Raises ValueError when it is another page."""
    return frozenset(bytes(_content(page, Page.SUPPORTED_PAGES)))


def decode_serial(page: Buffer) -> str:
    """The unit serial number from page 80h, without padding. Raises ValueError when it is another page."""
    return _stripped(bytes(_content(page, Page.UNIT_SERIAL_NUMBER)))


def decode_naa(page: Buffer) -> int | None:
    """The longest NAA designator of the logical unit on page 83h; None without one. Raises ValueError for another page."""
    names = [name for values, name in _designators(_content(page, Page.DEVICE_IDENTIFICATION)) if _names_unit(values)]
    return int.from_bytes(max(names, key=len), "big") if names else None


def decode_provisioning(page: Buffer) -> Provisioning:
    """From page B2h. Raises ValueError when it is another page."""
    values = _PROVISIONING.decode(_padded(_content(page, Page.LOGICAL_BLOCK_PROVISIONING), _PROVISIONING.size))
    return Provisioning(bool(values.lbpu), bool(values.lbpws), bool(values.lbprz & 1))


def _content(data: Buffer, page: Page) -> Buffer:
    header = _HEADER.decode(data)
    if header.page != page:
        raise ValueError(f"page {header.page:#04x} came instead of {page:#04x}")
    return data[_HEADER.size : _HEADER.size + header.length]


def _designator(code_set: int, designator_type: int, name: bytes) -> bytes:
    header = _DESIGNATOR.encode(code_set=code_set, association=_LOGICAL_UNIT, type=designator_type, length=len(name))
    return header + name


def _designators(content: Buffer) -> Iterator[tuple[Values, bytes]]:
    while len(content) >= _DESIGNATOR.size:
        values = _DESIGNATOR.decode(content)
        end = _DESIGNATOR.size + values.length
        yield values, bytes(content[_DESIGNATOR.size : end])
        content = content[end:]


def _names_unit(values: Values) -> bool:
    return values.association == _LOGICAL_UNIT and values.type == _NAA and values.code_set == _BINARY


def _text(text: str, size: int) -> int:
    return int.from_bytes(text.encode().ljust(size), "big")


def _stripped(text: bytes) -> str:
    return text.decode("ascii", "replace").strip(" \0")


def _padded(data: Buffer, size: int) -> bytes:
    return bytes(data[:size]).ljust(size, b"\0")
