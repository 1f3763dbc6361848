"""libsgutils2, the library of sg3_utils: what a disk says of itself, asked by another's code, and sense data in words.

Every signature is in `SIGNATURES`; every error leaves here as DiskError. The guard needs `inquiry` and `read_capacity_16`
only; `PtObject`, `read_capacity_10`, `mode_sense_6`, `mode_sense_10`, `sense_words` and `sense_text` are for tests, which
hold our own passthrough, pages and sense data against the library by them.

Ref: sg3_utils 1.46, sg_pt.h, sg_cmds_basic.h, sg_lib.h.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_uint, c_uint8, c_uint64, c_void_p
from enum import IntEnum
from functools import cache
from types import TracebackType
from typing import Any, NamedTuple, Self

from hwvirt.disk.disk import ATTENTIONS_MOST
from hwvirt.errors import DiskError

__all__ = [
    "SIGNATURES",
    "NotSupportedError",
    "PtObject",
    "PtOutcome",
    "ResultCategory",
    "SenseHeader",
    "SenseWords",
    "inquiry",
    "library_name",
    "mode_sense_6",
    "mode_sense_10",
    "read_capacity_10",
    "read_capacity_16",
    "sense_text",
    "sense_words",
]

_SONAMES = ("libsgutils2-1.46.so.2", "libsgutils2-1.48.so.2", "libsgutils2.so.2")  # Debian 12, Debian 13, upstream
_PACKAGE = "libsgutils2-1.46-2"
_SENSE_BYTES = 252
_TEXT_BYTES = 2048
_QUIET = (False, 0)  # noisy, verbose
_UNIT_ATTENTION, _NOT_SUPPORTED = 6, (5, 9)  # SG_LIB_CAT_UNIT_ATTENTION, _ILLEGAL_REQ and _INVALID_OP of sg_lib.h

_BYTES = POINTER(c_uint8)
_OBJECT = c_void_p


class SenseHeader(ctypes.Structure):
    """struct sg_scsi_sense_hdr: what fixed and descriptor sense data have in common."""

    _fields_ = tuple(
        (name, c_uint8)
        for name in ("response_code", "sense_key", "asc", "ascq", "byte4", "byte5", "byte6", "additional_length")
    )


SIGNATURES: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "construct_scsi_pt_obj_with_fd": (_OBJECT, (c_int, c_int)),
    "clear_scsi_pt_obj": (None, (_OBJECT,)),
    "partial_clear_scsi_pt_obj": (None, (_OBJECT,)),
    "destruct_scsi_pt_obj": (None, (_OBJECT,)),
    "set_scsi_pt_cdb": (None, (_OBJECT, _BYTES, c_int)),
    "set_scsi_pt_sense": (None, (_OBJECT, _BYTES, c_int)),
    "set_scsi_pt_data_in": (None, (_OBJECT, _BYTES, c_int)),
    "set_scsi_pt_data_out": (None, (_OBJECT, _BYTES, c_int)),
    "do_scsi_pt": (c_int, (_OBJECT, c_int, c_int, c_int)),
    "get_scsi_pt_result_category": (c_int, (_OBJECT,)),
    "get_scsi_pt_resid": (c_int, (_OBJECT,)),
    "get_scsi_pt_status_response": (c_int, (_OBJECT,)),
    "get_scsi_pt_sense_len": (c_int, (_OBJECT,)),
    "get_scsi_pt_duration_ms": (c_int, (_OBJECT,)),
    "get_pt_duration_ns": (c_uint64, (_OBJECT,)),
    "get_scsi_pt_os_err": (c_int, (_OBJECT,)),
    "get_scsi_pt_os_err_str": (c_char_p, (_OBJECT, c_int, c_char_p)),
    "get_scsi_pt_transport_err": (c_int, (_OBJECT,)),
    "get_scsi_pt_transport_err_str": (c_char_p, (_OBJECT, c_int, c_char_p)),
    "sg_ll_inquiry": (c_int, (c_int, c_bool, c_bool, c_int, c_void_p, c_int, c_bool, c_int)),
    "sg_ll_readcap_10": (c_int, (c_int, c_bool, c_uint, c_void_p, c_int, c_bool, c_int)),
    "sg_ll_readcap_16": (c_int, (c_int, c_bool, c_uint64, c_void_p, c_int, c_bool, c_int)),
    "sg_ll_mode_sense6": (c_int, (c_int, c_bool, c_int, c_int, c_int, c_void_p, c_int, c_bool, c_int)),
    "sg_ll_mode_sense10": (c_int, (c_int, c_bool, c_bool, c_int, c_int, c_int, c_void_p, c_int, c_bool, c_int)),
    "sg_get_sense_str": (c_int, (c_char_p, _BYTES, c_int, c_bool, c_int, c_char_p)),
    "sg_get_category_sense_str": (c_char_p, (c_int, c_int, c_char_p, c_int)),
    "sg_scsi_normalize_sense": (c_bool, (_BYTES, c_int, POINTER(SenseHeader))),
    "sg_get_sense_info_fld": (c_bool, (_BYTES, c_int, POINTER(c_uint64))),
}
"""Function → (result type, argument types), as the headers declare them."""


class ResultCategory(IntEnum):
    """SCSI_PT_RESULT_*: which part of a pt object says how the command ended."""

    GOOD = 0
    STATUS = 1
    SENSE = 2
    TRANSPORT_ERROR = 3
    OS_ERROR = 4


class NotSupportedError(DiskError):
    """The disk does not know the command or the page."""


class PtOutcome(NamedTuple):
    """What a pt object knows after its command: `duration_ms` is -1, `duration_ns` 0 where the library cannot say.

    The errors are 0, and their words empty, where there was none.
    """

    category: ResultCategory
    status: int
    sense: bytes
    residual: int
    duration_ms: int
    duration_ns: int
    os_error: int
    os_error_text: str
    transport_error: int
    transport_error_text: str
    data: bytes


class PtObject:
    """A pass-through object of the library over an open node; a context manager. One command at a time."""

    def __init__(self, fd: int) -> None:
        self._library = _library()
        self._object = self._library.construct_scsi_pt_obj_with_fd(fd, 0)
        if not self._object:
            raise DiskError("libsgutils2 has no memory for a pass-through object.")
        # The object points to these until they are set anew.
        self._cdb = b""
        self._command: Any = None
        self._sense = (c_uint8 * _SENSE_BYTES)()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._library.destruct_scsi_pt_obj(self._object)
        self._object = None

    def execute(self, cdb: bytes, *, data_out: bytes = b"", data_in_length: int = 0, timeout_s: int = 60) -> PtOutcome:
        """Sends the command and waits for its end. Raises DiskError when the library did not send it."""
        library, pt = self._library, self._object
        self._prepare(cdb)
        data = (c_uint8 * (data_in_length or len(data_out) or 1))()
        if data_in_length:
            library.set_scsi_pt_data_in(pt, data, data_in_length)
        elif data_out:
            ctypes.memmove(data, data_out, len(data_out))
            library.set_scsi_pt_data_out(pt, data, len(data_out))
        result = library.do_scsi_pt(pt, -1, timeout_s, 0)
        if result:
            reason = os.strerror(-result) if result < 0 else f"do_scsi_pt says {result}"
            raise DiskError(f"libsgutils2 could not send command {cdb.hex(' ')}: {reason}.")
        residual = library.get_scsi_pt_resid(pt)
        os_error, transport_error = library.get_scsi_pt_os_err(pt), library.get_scsi_pt_transport_err(pt)
        return PtOutcome(
            category=ResultCategory(library.get_scsi_pt_result_category(pt)),
            status=library.get_scsi_pt_status_response(pt),
            sense=bytes(self._sense[: library.get_scsi_pt_sense_len(pt)]),
            residual=residual,
            duration_ms=library.get_scsi_pt_duration_ms(pt),
            duration_ns=library.get_pt_duration_ns(pt),
            os_error=os_error,
            os_error_text=self._words(library.get_scsi_pt_os_err_str) if os_error else "",
            transport_error=transport_error,
            transport_error_text=self._words(library.get_scsi_pt_transport_err_str) if transport_error else "",
            data=bytes(data[: max(0, data_in_length - residual)]),
        )

    def _prepare(self, cdb: bytes) -> None:
        """Forgets the last command; the same one again keeps its CDB and sense buffer."""
        if cdb == self._cdb:
            self._library.partial_clear_scsi_pt_obj(self._object)
            return
        self._cdb, self._command = cdb, (c_uint8 * len(cdb)).from_buffer_copy(cdb)
        self._library.clear_scsi_pt_obj(self._object)
        self._library.set_scsi_pt_cdb(self._object, self._command, len(cdb))
        self._library.set_scsi_pt_sense(self._object, self._sense, _SENSE_BYTES)

    def _words(self, function: Any) -> str:
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        function(self._object, _TEXT_BYTES, text)
        return text.value.decode("ascii", "replace").strip()


def inquiry(fd: int, page: int | None = None, length_bytes: int = 252) -> bytes:
    """Standard INQUIRY data, or the VPD page. Raises DiskError."""
    evpd, code = (False, 0) if page is None else (True, page)
    what = "INQUIRY" if page is None else f"INQUIRY of VPD page 0x{page:02x}"
    return _response(what, length_bytes, lambda data, size: (fd, False, evpd, code, data, size), "sg_ll_inquiry")


def read_capacity_10(fd: int) -> bytes:
    """The 8 bytes of READ CAPACITY(10). Raises DiskError."""
    return _response("READ CAPACITY(10)", 8, lambda data, size: (fd, False, 0, data, size), "sg_ll_readcap_10")


def read_capacity_16(fd: int) -> bytes:
    """The 32 bytes of READ CAPACITY(16). Raises DiskError."""
    return _response("READ CAPACITY(16)", 32, lambda data, size: (fd, False, 0, data, size), "sg_ll_readcap_16")


def mode_sense_6(fd: int, page: int, subpage: int = 0, length_bytes: int = 252) -> bytes:
    """Header and page of MODE SENSE(6), current values, no block descriptors. Raises DiskError."""
    what = f"MODE SENSE(6) of page 0x{page:02x}"
    return _response(
        what, length_bytes, lambda data, size: (fd, True, 0, page, subpage, data, size), "sg_ll_mode_sense6"
    )


def mode_sense_10(fd: int, page: int, subpage: int = 0, length_bytes: int = 252) -> bytes:
    """Header and page of MODE SENSE(10), current values, no block descriptors. Raises DiskError."""
    what = f"MODE SENSE(10) of page 0x{page:02x}"
    return _response(
        what, length_bytes, lambda data, size: (fd, False, True, 0, page, subpage, data, size), "sg_ll_mode_sense10"
    )


class SenseWords(NamedTuple):
    """What the library finds in sense data of either format."""

    key: int
    asc: int
    ascq: int
    information: int | None


def sense_words(sense: bytes) -> SenseWords | None:
    """Key, additional codes and INFORMATION where it is valid; None for what is no sense data."""
    data, header, information = _sense_bytes(sense), SenseHeader(), c_uint64()
    if not _library().sg_scsi_normalize_sense(data, len(sense), byref(header)):
        return None
    valid = _library().sg_get_sense_info_fld(data, len(sense), byref(information))
    return SenseWords(header.sense_key, header.asc, header.ascq, information.value if valid else None)


def sense_text(sense: bytes) -> str:
    """Sense data in words, on several lines, each descriptor too."""
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    _library().sg_get_sense_str(b"", _sense_bytes(sense), len(sense), False, _TEXT_BYTES, text)
    return text.value.decode("ascii", "replace").strip()


def _sense_bytes(sense: bytes) -> Any:
    return (c_uint8 * max(1, len(sense))).from_buffer_copy(sense or b"\0")


def _response(what: str, length_bytes: int, arguments: Callable[[Any, int], tuple[Any, ...]], function: str) -> bytes:
    library = _library()
    data = (c_uint8 * length_bytes)()
    result = _UNIT_ATTENTION
    for _ in range(1 + ATTENTIONS_MOST):
        result = getattr(library, function)(*arguments(data, length_bytes), *_QUIET)
        if result != _UNIT_ATTENTION:  # which only tells of the past
            break
    if result in _NOT_SUPPORTED:
        raise NotSupportedError(f"{what} is not known to the disk.")
    if result:
        text = ctypes.create_string_buffer(_TEXT_BYTES)
        library.sg_get_category_sense_str(result, _TEXT_BYTES, text, 0)
        reason = text.value.decode("ascii", "replace").strip() if result > 0 else os.strerror(-result)
        raise DiskError(f"{what} failed: {reason} ({result}).")
    return bytes(data)


def library_name() -> str:
    """The library that is used here. Raises DiskError with what to install."""
    return str(_library()._name)


@cache
def _library() -> Any:
    """The library with every signature set; loaded once."""
    library = next(filter(None, map(_loaded, _SONAMES)), None)
    if library is None:
        raise DiskError(
            f"{_SONAMES[0]} is missing.", next_step=f"Install it: apt-get install {_PACKAGE} (it comes with sg3-utils)."
        )
    for name, (result, arguments) in SIGNATURES.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _loaded(soname: str) -> Any:
    try:
        return ctypes.CDLL(soname)
    except OSError:
        return None
