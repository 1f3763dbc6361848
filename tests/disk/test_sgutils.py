"""The bindings to libsgutils2: signatures as in its headers, errors with the next step."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from typing import Any

import pytest

from hwvirt.disk import sgutils
from hwvirt.disk.sgutils import SIGNATURES, PtObject, inquiry, mode_sense_10, read_capacity_16, sense_text
from hwvirt.errors import DiskError

# sg_pt.h, sg_cmds_basic.h and sg_lib.h of 1.46, without names and const; a pt object is a "struct sg_pt_base *" there.
HEADERS = """
    pt construct_scsi_pt_obj_with_fd(int, int)
    void clear_scsi_pt_obj(pt)
    void destruct_scsi_pt_obj(pt)
    void set_scsi_pt_cdb(pt, uint8_t *, int)
    void set_scsi_pt_sense(pt, uint8_t *, int)
    void set_scsi_pt_data_in(pt, uint8_t *, int)
    void set_scsi_pt_data_out(pt, uint8_t *, int)
    int do_scsi_pt(pt, int, int, int)
    int get_scsi_pt_result_category(pt)
    int get_scsi_pt_resid(pt)
    int get_scsi_pt_status_response(pt)
    int get_scsi_pt_sense_len(pt)
    int get_scsi_pt_duration_ms(pt)
    int get_scsi_pt_os_err(pt)
    int get_scsi_pt_transport_err(pt)
    char * get_scsi_pt_transport_err_str(pt, int, char *)
    int sg_ll_inquiry(int, bool, bool, int, void *, int, bool, int)
    int sg_ll_readcap_16(int, bool, uint64_t, void *, int, bool, int)
    int sg_ll_mode_sense10(int, bool, bool, int, int, int, void *, int, bool, int)
    int sg_get_sense_str(char *, uint8_t *, int, bool, int, char *)
    char * sg_get_category_sense_str(int, int, char *, int)
"""

C_TYPES: dict[Any, str] = {
    None: "void",
    ctypes.c_int: "int",
    ctypes.c_bool: "bool",
    ctypes.c_uint64: "uint64_t",
    ctypes.c_char_p: "char *",
    ctypes.POINTER(ctypes.c_uint8): "uint8_t *",
    ctypes.c_void_p: "void *",
}


@pytest.fixture
def library() -> None:
    try:
        sgutils._library()
    except DiskError as error:
        pytest.skip(str(error))


@pytest.fixture
def not_scsi(library: None) -> Iterator[int]:
    fd = os.open("/dev/null", os.O_RDWR)
    yield fd
    os.close(fd)


def test_signatures_are_those_of_the_headers() -> None:
    lines = []
    for name, (result, arguments) in SIGNATURES.items():
        words = [C_TYPES[argument] for argument in arguments]
        if "scsi_pt" in name and words[0] == "void *":
            words[0] = "pt"
        kind = "pt" if name.startswith("construct") else C_TYPES[result]
        lines.append(f"{kind} {name}({', '.join(words)})")
    assert lines == [line.strip() for line in HEADERS.strip().splitlines()]


def test_library_has_every_function_that_is_bound(library: None) -> None:
    for name in SIGNATURES:
        assert getattr(sgutils._library(), name).argtypes is not None


def test_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sgutils, "_LIBRARY", "libsgutils2-none.so.2")
    sgutils._library.cache_clear()
    try:
        with pytest.raises(DiskError) as caught:
            sense_text(b"")
    finally:
        sgutils._library.cache_clear()
    assert str(caught.value) == (
        "libsgutils2-none.so.2 is missing. Install it: apt-get install libsgutils2-1.46-2 (it comes with sg3-utils)."
    )


def test_sense_data_is_told_in_words(library: None) -> None:
    text = sense_text(bytes.fromhex("f00003000003e80a00000000110000000000"))
    assert "Medium Error" in text
    assert "Unrecovered read error" in text
    assert "0x3e8" in text
    assert sense_text(b"") != ""


def test_node_that_speaks_no_scsi_is_a_disk_error(not_scsi: int) -> None:
    reason = "Inappropriate ioctl for device"
    with pytest.raises(DiskError, match=rf"INQUIRY failed: {reason} \(75\)\."):
        inquiry(not_scsi)
    with pytest.raises(DiskError, match="INQUIRY of VPD page 0x83 failed"):
        inquiry(not_scsi, 0x83)
    with pytest.raises(DiskError, match=r"READ CAPACITY\(16\) failed"):
        read_capacity_16(not_scsi)
    with pytest.raises(DiskError, match=r"MODE SENSE\(10\) of page 0x08 failed"):
        mode_sense_10(not_scsi, 8)
    with PtObject(not_scsi) as pt, pytest.raises(DiskError) as caught:
        pt.execute(bytes(6))
    assert str(caught.value) == f"libsgutils2 could not send command 00 00 00 00 00 00: {reason}."
