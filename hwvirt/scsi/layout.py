"""Layouts: what stands where in a CDB, a page or a header. A layout that does not add up cannot be defined.

    RANGE = Layout("range", 16, Int("lba", byte=0, size=8), Int("blocks", byte=8, size=4), Bits("anchor", 12, 0))
    RANGE.encode(lba=4096, blocks=8)
    RANGE.decode(data).lba

What no field names is reserved: encoded as zero, found by `unnamed`. Byte and bit numbers are those of the T10 tables.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from hwvirt.buffers import Buffer

__all__ = ["Bits", "Field", "Int", "Layout", "LayoutError", "Values"]


class LayoutError(Exception):
    """A layout does not add up: a mistake in the program, found when the layout is defined."""


class Int(NamedTuple):
    """An unsigned integer, most significant byte first, of `size` bytes from `byte`."""

    name: str
    byte: int
    size: int = 1


class Bits(NamedTuple):
    """Bits `high` down to `low` of one byte; one bit where `low` is left out."""

    name: str
    byte: int
    high: int
    low: int | None = None


Field = Int | Bits


class Values(dict[str, int]):
    """Decoded values by field name, also as attributes: `values.lba`."""

    def __getattr__(self, name: str) -> int:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"no field {name!r} among {', '.join(self)}") from None


class _Place(NamedTuple):
    """Where a field lies in the layout read as one big number."""

    name: str
    shift: int
    most: int


class Layout:
    """`size` bytes with named fields. Raises LayoutError when fields overlap, share a name or stick out."""

    def __init__(self, name: str, size: int, *fields: Field) -> None:
        self.name = name
        self.size = size
        self.fields = fields
        self._places = tuple(self._placed())
        self._named = sum(place.most << place.shift for place in self._places)

    @property
    def usage(self) -> bytes:
        """One for every bit that a field names."""
        return self._named.to_bytes(self.size, "big")

    def encode(self, **values: int) -> bytes:
        """Fields without a value are zero. Raises ValueError for a value out of range, TypeError for an unknown one."""
        number = 0
        for name, shift, most in self._places:
            value = values.pop(name, 0)
            if not 0 <= value <= most:
                raise ValueError(f"{self.name}: {name}={value} is not within 0..{most}")
            number |= value << shift
        if values:
            raise TypeError(f"{self.name} has no field {', '.join(values)}")
        return number.to_bytes(self.size, "big")

    def decode(self, data: Buffer) -> Values:
        """The values in the first `size` bytes. Raises ValueError when there are fewer."""
        number = self._number(data)
        return Values({name: number >> shift & most for name, shift, most in self._places})

    def unnamed(self, data: Buffer) -> int:
        """Not zero when a bit is set that no field names. Raises ValueError when there are fewer than `size` bytes."""
        return self._number(data) & ~self._named

    def _number(self, data: Buffer) -> int:
        if len(data) < self.size:
            raise ValueError(f"{self.name} takes {self.size} bytes, not {len(data)}")
        return int.from_bytes(data[: self.size], "big")

    def _placed(self) -> Iterator[_Place]:
        taken = 0
        names: set[str] = set()
        for field in self.fields:
            place = self._place(field)
            bits = place.most << place.shift
            if field.name in names:
                raise LayoutError(f"{self.name} has two fields {field.name}")
            if taken & bits:
                raise LayoutError(f"{self.name}: {field.name} overlaps a field before it")
            taken |= bits
            names.add(field.name)
            yield place

    def _place(self, field: Field) -> _Place:
        if isinstance(field, Int):
            name, byte, size = field
            high, low = 7, 0
        else:
            name, byte, high, bottom = field
            low = high if bottom is None else bottom
            size = 1
        last = byte + size - 1
        if byte < 0 or size < 1 or last >= self.size:
            raise LayoutError(f"{self.name} has {self.size} bytes: {name} does not fit at byte {byte}")
        if not 7 >= high >= low >= 0:
            raise LayoutError(f"{self.name}: {name} has bits {high} to {low}")
        return _Place(name, (self.size - 1 - last) * 8 + low, (1 << (size - 1) * 8 + high - low + 1) - 1)
