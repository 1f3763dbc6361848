"""INQUIRY data, VPD and mode pages, capacity and LUN lists: bytes of the standard, and what disks send shorter or longer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwvirt.scsi import mode, parameters, vpd
from hwvirt.scsi.sense import SenseFormat
from hwvirt.scsi.volume import Access, Extent
from hwvirt.scsi.vpd import BlockLimits, Identity, Page

IDENTITY = Identity("HWVIRT", "DISK", "1.0", "SN-0042", 0x3000_0000_0000_0042)
LIMITS = BlockLimits(255, 16384, 256, 1 << 23, 256, 1, 1 << 23)


def page(number: int, identity: Identity = IDENTITY) -> bytes:
    data = vpd.encode_page(number, identity, LIMITS)
    assert data is not None
    return data


def test_standard_inquiry_is_that_of_a_disk() -> None:
    data = vpd.encode_inquiry(IDENTITY)
    assert len(data) == 96
    assert data[:8].hex(" ") == "00 00 06 12 5b 00 00 02"
    assert data[8:36] == b"HWVIRT  DISK            1.0 "
    assert data[58:64].hex(" ") == "00 a0 04 60 06 00"
    assert vpd.decode_inquiry(data) == vpd.Inquiry(0, 0, "HWVIRT", "DISK", "1.0")


def test_page_that_there_is_not_is_none() -> None:
    assert vpd.encode_page(0x84, IDENTITY, LIMITS) is None


def test_supported_pages_are_those_that_can_be_had() -> None:
    data = page(Page.SUPPORTED_PAGES)
    assert data.hex(" ") == "00 00 00 06 00 80 83 b0 b1 b2"
    assert vpd.decode_pages(data) == {number for number in range(256) if vpd.encode_page(number, IDENTITY, LIMITS)}


def test_serial_page() -> None:
    assert page(0x80) == b"\x00\x80\x00\x07SN-0042"
    assert vpd.decode_serial(b"\x00\x80\x00\x0a  SN-0042\0") == "SN-0042"


def test_identification_page_names_the_unit_twice() -> None:
    assert page(0x83) == (
        b"\x00\x83\x00\x1f" + b"\x01\x03\x00\x08\x30\x00\x00\x00\x00\x00\x00\x42" + b"\x02\x01\x00\x0fHWVIRT  SN-0042"
    )
    assert vpd.decode_naa(page(0x83)) == IDENTITY.naa


def test_naa_of_a_port_is_not_the_units() -> None:
    port = b"\x61\x93\x00\x08\x50\x00\x00\x00\x00\x00\x00\x01"
    unit = b"\x01\x03\x00\x08\x50\x00\x00\x00\x00\x00\x00\x02"
    assert vpd.decode_naa(b"\x00\x83\x00\x0c" + port) is None
    assert vpd.decode_naa(b"\x00\x83\x00\x18" + port + unit) == 0x5000000000000002


def test_long_naa_is_preferred() -> None:
    long = Identity("V", "P", "1", "S", 6 << 124 | 0xABC)
    assert vpd.decode_naa(page(0x83, long)) == 6 << 124 | 0xABC


def test_block_limits_page() -> None:
    data = page(0xB0)
    assert data.hex(" ") == (
        "00 b0 00 3c 01 ff 00 00 00 00 40 00 00 00 01 00 00 00 00 00 00 80 00 00 00 00 01 00 00 00 00 01 00 00 00 00 "
        "00 00 00 00 00 80 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00"
    )
    assert BlockLimits.decode(data) == LIMITS


def test_short_block_limits_page_of_an_old_disk_says_nothing_about_unmap() -> None:
    old = b"\x00\xb0\x00\x0c" + page(0xB0)[4:16]
    assert BlockLimits.decode(old) == BlockLimits(max_compare_and_write=255, max_transfer=16384, optimal_transfer=256)


def test_characteristics_page_says_that_nothing_rotates() -> None:
    assert page(0xB1).hex(" ") == "00 b1 00 3c 00 01" + " 00" * 58


def test_provisioning_page() -> None:
    assert page(0xB2).hex(" ") == "00 b2 00 04 00 e4 02 00"
    assert vpd.decode_provisioning(page(0xB2)) == vpd.Provisioning(True, True, True)
    assert vpd.decode_provisioning(bytes.fromhex("00b2000400400200")) == vpd.Provisioning(False, True, False)


@pytest.mark.parametrize(
    "decode", [vpd.decode_pages, vpd.decode_serial, vpd.decode_naa, vpd.decode_provisioning, BlockLimits.decode]
)
def test_another_page_is_refused(decode: Callable[[bytes], object]) -> None:
    with pytest.raises(ValueError, match=r"^page 0xb1 came instead of"):
        decode(page(0xB1))
    with pytest.raises(ValueError, match=r"^VPD page header takes 4 bytes, not 2$"):
        decode(b"\0\0")


@given(st.sampled_from(Page), st.binary(max_size=80))
def test_garbled_pages_decode_or_are_refused_with_value_error(number: int, data: bytes) -> None:
    garbled = bytes([0, number]) + data
    for decode in (vpd.decode_pages, vpd.decode_serial, vpd.decode_naa, vpd.decode_provisioning, BlockLimits.decode):
        try:
            decode(garbled)
        except ValueError:
            continue


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"vendor": "TOO LONG!"}, "vendor 'TOO LONG!' is not up to 8 printable ASCII characters"),
        ({"product": "é"}, "product 'é' is not up to 16 printable ASCII characters"),
        ({"revision": "1\n"}, "revision '1\\n' is not up to 4 printable ASCII characters"),
        ({"naa": 0x42}, "0x42 is not an NAA designator"),
        ({"naa": 7 << 124}, f"{7 << 124:#x} is not an NAA designator"),
    ],
)
def test_identity_that_no_page_can_carry_is_refused(change: dict[str, str | int], reason: str) -> None:
    values: dict[str, object] = {"vendor": "V", "product": "P", "revision": "1", "serial": "S", "naa": 3 << 60, **change}
    with pytest.raises(ValueError) as error:
        Identity(**values)  # type: ignore[arg-type]  # one value is wrong on purpose
    assert str(error.value) == reason


def test_mode_data_6() -> None:
    pages = mode.encode_pages(0x3F, mode.PageControl.CURRENT, SenseFormat.FIXED)
    assert pages is not None
    data = mode.encode_mode_6(pages, mode.encode_descriptor(0x1000, 4096), Access.READ_WRITE)
    assert data.hex(" ") == (
        "2b 00 10 08 00 00 10 00 00 00 10 00 "
        "08 12 04 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 "
        "0a 0a 00 10 00 00 00 00 00 00 00 00"
    )


def test_mode_data_10_tells_write_protection_fua_and_volatile_cache() -> None:
    pages = mode.encode_pages(0x08, mode.PageControl.CURRENT, SenseFormat.FIXED)
    assert pages is not None
    data = mode.encode_mode_10(pages, b"", Access.READ_ONLY)
    assert data[:8].hex(" ") == "00 1a 00 90 00 00 00 00"
    assert mode.decode_mode_10(data) == mode.ModeFacts(write_protected=True, fua=True, volatile_cache=True)
    with_descriptor = mode.encode_mode_10(pages, mode.encode_descriptor(1, 512), Access.READ_WRITE)
    assert mode.decode_mode_10(with_descriptor) == mode.ModeFacts(write_protected=False, fua=True, volatile_cache=True)


def test_caching_page_is_found_behind_other_pages_and_subpages() -> None:
    subpage, control = bytes.fromhex("4a0100020000"), bytes.fromhex("0a0a") + bytes(10)
    caching = bytes.fromhex("08120400") + bytes(16)
    content = subpage + control + caching
    data = (len(content) + 6).to_bytes(2, "big") + bytes(6) + content
    assert mode.decode_mode_10(data).volatile_cache is True
    assert mode.decode_mode_10(data[:20]).volatile_cache is None


def test_descriptor_sense_is_told_in_the_control_page_and_nothing_is_changeable() -> None:
    fixed = mode.encode_pages(0x0A, mode.PageControl.CURRENT, SenseFormat.FIXED)
    descriptor = mode.encode_pages(0x0A, mode.PageControl.CURRENT, SenseFormat.DESCRIPTOR)
    assert (fixed, descriptor) == (bytes.fromhex("0a0a0010") + bytes(8), bytes.fromhex("0a0a0410") + bytes(8))
    changeable = mode.encode_pages(0x3F, mode.PageControl.CHANGEABLE, SenseFormat.DESCRIPTOR)
    assert changeable == bytes.fromhex("0812") + bytes(18) + bytes.fromhex("0a0a") + bytes(10)


@given(st.binary(min_size=8, max_size=64))
def test_garbled_mode_data_decodes_to_something(data: bytes) -> None:
    assert mode.decode_mode_10(data).volatile_cache in (True, False, None)


def test_capacity_of_more_than_32_bits_is_told_by_read_capacity_16_only() -> None:
    assert parameters.encode_capacity_10(1 << 20, 512).hex(" ") == "00 0f ff ff 00 00 02 00"
    assert parameters.encode_capacity_10(1 << 32, 512).hex(" ") == "ff ff ff ff 00 00 02 00"
    assert parameters.encode_capacity_10(1 << 33, 512).hex(" ") == "ff ff ff ff 00 00 02 00"
    data = parameters.encode_capacity_16(1 << 33, 4096)
    assert data.hex(" ") == "00 00 00 01 ff ff ff ff 00 00 10 00 00 00 c0 00" + " 00" * 16
    assert parameters.decode_capacity(data) == parameters.Capacity(1 << 33, 4096, True, True)
    assert parameters.decode_capacity(data[:12]) == parameters.Capacity(1 << 33, 4096, False, False)
    with pytest.raises(ValueError, match=r"at least 12 bytes, not 11$"):
        parameters.decode_capacity(data[:11])


def test_lun_list_uses_flat_space_from_256() -> None:
    data = parameters.encode_luns([0, 255, 256, 16383])
    assert data.hex(" ") == (
        "00 00 00 20 00 00 00 00 00 00 00 00 00 00 00 00 00 ff 00 00 00 00 00 00 "
        "41 00 00 00 00 00 00 00 7f ff 00 00 00 00 00 00"
    )
    assert parameters.decode_luns(data) == [0, 255, 256, 16383]
    well_known = b"\xc1\x01" + bytes(6)
    assert parameters.decode_luns(b"\0\0\0\x10" + bytes(4) + well_known + bytes(8)) == [0]
    with pytest.raises(ValueError, match=r"^LUN 16384 is not within 0..16383$"):
        parameters.lun_field(16384)


def test_unmap_list_decodes_to_whole_descriptors() -> None:
    data = parameters.encode_unmap_list([Extent(1, 2), Extent(3, 4)])
    assert parameters.decode_unmap_list(data) == [Extent(1, 2), Extent(3, 4)]
    assert parameters.decode_unmap_list(data[:39]) == [Extent(1, 2)]
    assert parameters.decode_unmap_list(data[:2] + b"\0\x1f" + data[4:]) == [Extent(1, 2)]
    assert parameters.decode_unmap_list(bytes(8)) == []
    with pytest.raises(ValueError, match=r"takes 8 bytes, not 7$"):
        parameters.decode_unmap_list(bytes(7))


def test_lba_status_runs_follow_each_other() -> None:
    status = parameters.LbaStatus
    data = parameters.encode_lba_status(0x10, [(2, status.MAPPED), (3, status.DEALLOCATED)])
    assert data.hex(" ") == (
        "00 00 00 24 00 00 00 00 00 00 00 00 00 00 00 10 00 00 00 02 00 00 00 00 "
        "00 00 00 00 00 00 00 12 00 00 00 03 01 00 00 00"
    )
