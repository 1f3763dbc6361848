"""What lies on a disk: our label, and what others would recognise. Only read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hwvirt.disk.discovery.label import LABEL_BYTES, BadLabelError, Label, decode_label
from hwvirt.disk.discovery.signatures import Signature, find_signatures
from hwvirt.errors import DiskError

__all__ = ["Content", "opened", "read_content", "read_label_bytes"]


@dataclass(frozen=True, slots=True)
class Content:
    """The label, or why it is none (`bad_label`, as the end of a sentence), and the signatures."""

    label: Label | None = None
    bad_label: str = ""
    signatures: tuple[Signature, ...] = ()


def read_content(fd: int) -> Content:
    """What lies on the disk behind a block device's descriptor. Raises DiskError."""
    signatures = tuple(find_signatures(fd))
    try:
        return Content(decode_label(read_label_bytes(fd)), "", signatures)
    except BadLabelError as error:
        return Content(None, str(error), signatures)


def read_label_bytes(fd: int) -> bytes:
    """The first LABEL_BYTES of a block device. Raises DiskError."""
    try:
        return os.pread(fd, LABEL_BYTES, 0)
    except OSError as error:
        raise DiskError(f"cannot read the label of {os.readlink(f'/proc/self/fd/{fd}')}: {error.strerror}.") from error


@contextmanager
def opened(node: str) -> Iterator[int]:
    """A descriptor of a node, for reading. Raises DiskError."""
    try:
        fd = os.open(node, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        next_step = "Run it as root, or join the group hwvirt."
        raise DiskError(f"cannot open {node}: {error.strerror}.", next_step=next_step) from error
    try:
        yield fd
    finally:
        os.close(fd)
