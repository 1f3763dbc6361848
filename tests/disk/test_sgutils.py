"""The bindings to libsgutils2: signatures as in its headers, errors with the next step."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from hwvirt.disk import sgutils
from hwvirt.disk.sgutils import (
    SIGNATURES,
    PtObject,
    ResultCategory,
    SenseHeader,
    inquiry,
    library_name,
    mode_sense_6,
    mode_sense_10,
    read_capacity_10,
    read_capacity_16,
    sense_text,
    sense_words,
)
from hwvirt.errors import DiskError
from hwvirt.scsi.sense import Sense, SenseFormat, decode_sense, encode_sense
from hwvirt.scsi.status import SenseKey

# sg_pt.h, sg_cmds_basic.h and sg_lib.h of 1.46, without names and const; a pt object is a "struct sg_pt_base *" there.
HEADERS = """
    pt construct_scsi_pt_obj_with_fd(int, int)
    void clear_scsi_pt_obj(pt)
    void partial_clear_scsi_pt_obj(pt)
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
    uint64_t get_pt_duration_ns(pt)
    int get_scsi_pt_os_err(pt)
    char * get_scsi_pt_os_err_str(pt, int, char *)
    int get_scsi_pt_transport_err(pt)
    char * get_scsi_pt_transport_err_str(pt, int, char *)
    int sg_ll_inquiry(int, bool, bool, int, void *, int, bool, int)
    int sg_ll_readcap_10(int, bool, unsigned int, void *, int, bool, int)
    int sg_ll_readcap_16(int, bool, uint64_t, void *, int, bool, int)
    int sg_ll_mode_sense6(int, bool, int, int, int, void *, int, bool, int)
    int sg_ll_mode_sense10(int, bool, bool, int, int, int, void *, int, bool, int)
    int sg_get_sense_str(char *, uint8_t *, int, bool, int, char *)
    char * sg_get_category_sense_str(int, int, char *, int)
    bool sg_scsi_normalize_sense(uint8_t *, int, struct sg_scsi_sense_hdr *)
    bool sg_get_sense_info_fld(uint8_t *, int, uint64_t *)
"""

C_TYPES: dict[Any, str] = {
    None: "void",
    ctypes.c_int: "int",
    ctypes.c_uint: "unsigned int",
    ctypes.c_bool: "bool",
    ctypes.c_uint64: "uint64_t",
    ctypes.c_char_p: "char *",
    ctypes.POINTER(ctypes.c_uint8): "uint8_t *",
    ctypes.c_void_p: "void *",
    ctypes.POINTER(SenseHeader): "struct sg_scsi_sense_hdr *",
    ctypes.POINTER(ctypes.c_uint64): "uint64_t *",
}

INCLUDE = Path("/usr/include/scsi")
NO_C = re.compile(r"/\*.*?\*/|^#(?:[^\n]*\\\n)*[^\n]*|\bconst\b", re.S | re.M)  # comments, directives, const
FUNCTION = re.compile(r"([\w ]+?[ *]+)(\w+)\(([^()]*)\)")


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
        if "_pt_" in f"{name}_" and words[0] == "void *":
            words[0] = "pt"
        kind = "pt" if name.startswith("construct") else C_TYPES[result]
        lines.append(f"{kind} {name}({', '.join(words)})")
    assert lines == [line.strip() for line in HEADERS.strip().splitlines()]


def header(name: str) -> str:
    """The text of a header."""
    try:
        return (INCLUDE / name).read_text()
    except OSError:
        pytest.skip("the headers are missing: apt install libsgutils2-dev")


def declarations(name: str) -> str:
    """A header as one line, without comments, directives and const."""
    return " ".join(NO_C.sub(" ", header(name)).split())


def without_name(parameter: str) -> str:
    """"struct sg_pt_base * objp" → "pt", "int fd" → "int"."""
    words = re.sub(r"\b\w+$", "", parameter.strip()).strip()
    return words.replace("struct sg_pt_base *", "pt")


def test_headers_of_the_package_declare_all_of_them_so() -> None:
    text = " ".join(map(declarations, ("sg_pt.h", "sg_cmds_basic.h", "sg_lib.h")))
    declared = set()
    for result, name, parameters in FUNCTION.findall(text):
        words = ", ".join(map(without_name, parameters.split(",")))
        declared.add(f"{result.strip().replace('struct sg_pt_base *', 'pt')} {name}({words})")
    assert {line.strip() for line in HEADERS.strip().splitlines()} <= declared


def test_sense_header_lies_in_memory_as_the_library_has_it() -> None:
    assert ctypes.sizeof(SenseHeader) == 8
    names = [field[0] for field in SenseHeader._fields_]
    assert [getattr(SenseHeader, name).offset for name in names] == list(range(8))
    (body,) = re.findall(r"struct sg_scsi_sense_hdr \{([^}]*)\}", declarations("sg_lib.h"))
    assert [field.strip() for field in body.split(";") if field.strip()] == [f"uint8_t {name}" for name in names]


def test_result_categories_are_those_of_the_header() -> None:
    declared = dict(re.findall(r"SCSI_PT_RESULT_(\w+) (\d+)", header("sg_pt.h")))
    assert {word.name: str(word.value) for word in ResultCategory} == {
        {"TRANSPORT_ERR": "TRANSPORT_ERROR", "OS_ERR": "OS_ERROR"}.get(name, name): value for name, value in declared.items()
    }


def test_library_has_every_function_that_is_bound(library: None) -> None:
    for name in SIGNATURES:
        assert getattr(sgutils._library(), name).argtypes is not None


def test_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sgutils, "_SONAMES", ("libsgutils2-none.so.2", "libsgutils2-neither.so.2"))
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


def test_first_library_that_is_here_is_taken(library: None, monkeypatch: pytest.MonkeyPatch) -> None:
    here = library_name()
    monkeypatch.setattr(sgutils, "_SONAMES", ("libsgutils2-none.so.2", here))
    sgutils._library.cache_clear()
    assert library_name() == here
    sgutils._library.cache_clear()


@pytest.mark.parametrize("form", SenseFormat)
@pytest.mark.parametrize(
    "sense",
    [
        Sense(SenseKey.MEDIUM_ERROR, 0x11, 0x00, 0x3E8),
        Sense(SenseKey.MEDIUM_ERROR, 0x0C, 0x02, 0xFFFFFFFF),
        Sense(SenseKey.NOT_READY, 0x04, 0x03),
        Sense(SenseKey.UNIT_ATTENTION, 0x29, 0x00),
    ],
)
def test_library_reads_our_sense_data_as_we_do(library: None, sense: Sense, form: SenseFormat) -> None:
    data = encode_sense(sense, form)
    words = sense_words(data)
    assert words == (sense.key, sense.asc, sense.ascq, sense.information)
    ours = decode_sense(data)
    assert words == (ours.key, ours.asc, ours.ascq, ours.information)


def test_descriptors_are_told_in_words_and_junk_is_no_sense_data(library: None) -> None:
    text = sense_text(bytes.fromhex("72031100 0000000c 000a8000 000000123456789a"))
    assert "Descriptor format" in text
    assert "Information: 0x000000123456789a" in text
    assert sense_words(b"") is None
    assert sense_words(b"\x11" * 18) is None


@pytest.mark.parametrize(("attentions", "asked"), [(5, 6), (6, 6)])
def test_disk_that_has_five_things_to_tell_first_is_heard_out(
    monkeypatch: pytest.MonkeyPatch, attentions: int, asked: int
) -> None:
    results = iter([6] * attentions + [0] * 9)  # 6: SG_LIB_CAT_UNIT_ATTENTION
    taken: list[int] = []

    def sg_ll_inquiry(*_: object) -> int:
        taken.append(next(results))
        return taken[-1]

    monkeypatch.setattr(
        sgutils,
        "_library",
        lambda: SimpleNamespace(sg_ll_inquiry=sg_ll_inquiry, sg_get_category_sense_str=lambda *_: None),
    )
    with nullcontext() if attentions < asked else pytest.raises(DiskError, match=r"INQUIRY failed: .*\(6\)\."):
        inquiry(-1)
    assert len(taken) == asked


def test_node_that_speaks_no_scsi_is_a_disk_error(not_scsi: int) -> None:
    reason = "Inappropriate ioctl for device"
    with pytest.raises(DiskError, match=rf"INQUIRY failed: {reason} \(75\)\."):
        inquiry(not_scsi)
    with pytest.raises(DiskError, match="INQUIRY of VPD page 0x83 failed"):
        inquiry(not_scsi, 0x83)
    with pytest.raises(DiskError, match=r"READ CAPACITY\(16\) failed"):
        read_capacity_16(not_scsi)
    with pytest.raises(DiskError, match=r"READ CAPACITY\(10\) failed"):
        read_capacity_10(not_scsi)
    with pytest.raises(DiskError, match=r"MODE SENSE\(10\) of page 0x08 failed"):
        mode_sense_10(not_scsi, 8)
    with pytest.raises(DiskError, match=r"MODE SENSE\(6\) of page 0x08 failed"):
        mode_sense_6(not_scsi, 8)
    with PtObject(not_scsi) as pt, pytest.raises(DiskError) as caught:
        pt.execute(bytes(6))
    assert str(caught.value) == f"libsgutils2 could not send command 00 00 00 00 00 00: {reason}."
