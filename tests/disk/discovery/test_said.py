"""A disk is asked who it is through libsgutils2; here the library's answers are made up."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import pytest

from hwvirt.disk import sgutils
from hwvirt.disk.discovery.said import Said, ask
from hwvirt.errors import DiskError
from hwvirt.scsi.vpd import Page

ATTENTION, ILLEGAL_REQUEST, MEDIUM = 6, 5, 3
STANDARD = bytes([0, 0, 6, 2, 31, 0, 0, 0]) + b"ACME    DISK            0001"
CAPACITY = (999).to_bytes(8, "big") + (4096).to_bytes(4, "big") + bytes(20)
NAA = bytes([1, 3, 0, 8]) + (0x5000C500AABBCCDD).to_bytes(8, "big")


def vpd(page: int, content: bytes) -> bytes:
    return bytes([0, page]) + len(content).to_bytes(2, "big") + content


class Library:
    """Answers in place of libsgutils2: data, or a result of sg_lib.h."""

    _name = "made up"

    def __init__(self) -> None:
        self.pages: dict[int | None, bytes | int] = {
            None: STANDARD,
            0x00: vpd(0, bytes([0x00, 0x80, 0x83])),
            0x80: vpd(0x80, b"  ZL2001"),
            0x83: vpd(0x83, NAA),
        }
        self.capacity: list[bytes | int] = [CAPACITY]

    def sg_ll_inquiry(self, fd: int, cmddt: bool, evpd: bool, page: int, data: Any, size: int, *quiet: object) -> int:
        return answer(self.pages.get(page if evpd else None, ILLEGAL_REQUEST), data, size)

    def sg_ll_readcap_16(self, fd: int, pmi: bool, lba: int, data: Any, size: int, *quiet: object) -> int:
        return answer(self.capacity.pop(0) if len(self.capacity) > 1 else self.capacity[0], data, size)

    def sg_get_category_sense_str(self, result: int, size: int, text: Any, verbose: int) -> None:
        text.value = f"category {result}".encode()


def answer(what: bytes | int, data: Any, size: int) -> int:
    if isinstance(what, int):
        return what
    ctypes.memmove(data, what, min(size, len(what)))
    return 0


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    made_up = Library()
    monkeypatch.setattr(sgutils, "_library", lambda: made_up)
    return made_up


def test_disk_says_serial_name_and_size(library: Library) -> None:
    assert ask("/dev/null") == Said("ZL2001", 0x5000C500AABBCCDD, 1000, 4096)
    assert ask("/dev/null").size_bytes == 4_096_000


def test_unit_attentions_are_passed_over_but_not_without_end(library: Library) -> None:
    library.capacity = [ATTENTION, ATTENTION, ATTENTION, CAPACITY]
    assert ask("/dev/null").blocks == 1000
    library.capacity = [ATTENTION]
    with pytest.raises(DiskError, match=r"^/dev/null: READ CAPACITY\(16\) failed: category 6 \(6\)\.$"):
        ask("/dev/null")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda pages: pages.pop(0x00), Said("", None, 1000, 4096)),
        (lambda pages: pages.pop(0x80), Said("", 0x5000C500AABBCCDD, 1000, 4096)),
        (lambda pages: pages.update({0x00: vpd(0, bytes([0x00, 0x80]))}), Said("ZL2001", None, 1000, 4096)),
        (lambda pages: pages.update({0x83: vpd(0x83, b"")}), Said("ZL2001", None, 1000, 4096)),
    ],
)
def test_what_a_disk_does_not_have_it_does_not_say(
    library: Library, change: Callable[[dict[int, bytes]], object], said: Said
) -> None:
    change(library.pages)  # type: ignore[arg-type]  # the answers of these pages are bytes
    assert ask("/dev/null") == said


def test_long_page_is_asked_for_whole(library: Library) -> None:
    vendor_specific = bytes([2, 0, 0, 250]) + bytes(250)
    library.pages[0x83] = vpd(0x83, vendor_specific + NAA)
    assert ask("/dev/null").naa == 0x5000C500AABBCCDD


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({None: bytes([5]) + STANDARD[1:]}, "/dev/null: no disk with blocks (peripheral device type 0x05)."),
        ({0x80: MEDIUM}, "/dev/null: INQUIRY of VPD page 0x80 failed: category 3 (3)."),
        ({0x80: vpd(0x83, b"x")}, "/dev/null sent data that makes no sense: "),
    ],
)
def test_what_is_wrong_with_the_answers_is_told(library: Library, change: dict[int | None, bytes | int], text: str) -> None:
    library.pages.update(change)
    with pytest.raises(DiskError) as caught:
        ask("/dev/null")
    assert str(caught.value).startswith(text)


def test_node_that_is_not_there() -> None:
    with pytest.raises(DiskError) as caught:
        ask("/dev/no-such-node")
    assert str(caught.value) == (
        "cannot open /dev/no-such-node: No such file or directory. "
        "Armed disks belong to the group hwvirt (hwvirt udev install); to arm one takes root."
    )


def test_without_the_library_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sgutils, "_SONAMES", ("libnone.so.0",))
    sgutils._library.cache_clear()
    try:
        with pytest.raises(DiskError) as caught:
            ask("/dev/null")
    finally:
        sgutils._library.cache_clear()
    assert str(caught.value) == (
        "/dev/null: libnone.so.0 is missing. Install it: apt-get install libsgutils2-1.46-2 (it comes with sg3-utils)."
    )


def test_pages_are_named_as_t10_numbers_them() -> None:
    assert (Page.SUPPORTED_PAGES, Page.UNIT_SERIAL_NUMBER, Page.DEVICE_IDENTIFICATION) == (0x00, 0x80, 0x83)
