"""What lies on a disk is recognised, by libblkid's word; our own label is nothing to it."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from hwvirt.disk.discovery import signatures
from hwvirt.disk.discovery.content import Content, opened, read_content
from hwvirt.disk.discovery.signatures import Signature
from hwvirt.errors import DiskError
from tests.disk.discovery.test_label import LABEL, WHOLE

SIZE = 4 << 20


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.touch()
    os.truncate(path, SIZE)
    return path


def content(image: Path) -> Content:
    with opened(str(image)) as fd:
        return read_content(fd)


def put(image: Path, offset: int, data: bytes) -> None:
    with image.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def mbr(image: Path) -> None:
    entry = struct.pack("<B3sB3sII", 0, b"\0\0\0", 0x83, b"\0\0\0", 2048, 2048)
    put(image, 446, entry)
    put(image, 510, b"\x55\xaa")


def gpt_header(lba: int, other: int, entries: int) -> bytes:
    """UEFI 5.3.2; no partition is used."""
    last = SIZE // 512 - 34
    array_crc = zlib.crc32(bytes(128 * 128))
    fields = [b"EFI PART", 0x10000, 92, 0, 0, lba, other, 34, last, bytes(15) + b"\1", entries, 128, 128, array_crc]
    fields[3] = zlib.crc32(struct.pack("<8sIIIIQQQQ16sQIII", *fields))
    return struct.pack("<8sIIIIQQQQ16sQIII", *fields)


def gpt(image: Path) -> None:
    last = SIZE // 512 - 1
    put(image, 446, struct.pack("<B3sB3sII", 0, b"\0\2\0", 0xEE, b"\xff\xff\xff", 1, last))
    put(image, 510, b"\x55\xaa")
    put(image, 512, gpt_header(1, last, 2))
    gpt_copy(image)


def gpt_copy(image: Path) -> None:
    last = SIZE // 512 - 1
    put(image, last * 512, gpt_header(last, 1, last - 32))


def lvm(image: Path) -> None:
    """A physical volume's label, as LVM2's format text has it."""
    body = struct.pack("<II8s", 0, 32, b"LVM2 001") + b"u" * 32
    body = body[4:].ljust(512 - 20, b"\0")
    put(image, 512, struct.pack("<8sQI", b"LABELONE", 1, 0) + body)


def md(image: Path) -> None:
    """A version 1.2 superblock: magic, version, then its own place in sectors at byte 128."""
    put(image, 4096, struct.pack("<II", 0xA92B4EFC, 1) + bytes(120) + struct.pack("<QQ", 0, 0) + struct.pack("<Q", 8))


def made_by(*command: str) -> Callable[[Path], None]:
    def make(image: Path) -> None:
        if shutil.which(command[0]) is None:
            pytest.skip(f"{command[0]} is missing")
        subprocess.run([*command, str(image)], check=True, capture_output=True)

    return make


@pytest.mark.parametrize(
    ("make", "kind", "usage", "words"),
    [
        (made_by("mkfs.ext4", "-qF"), "ext4", "filesystem", "ext4 file system"),
        (made_by("mkswap"), "swap", "other", "swap"),
        (mbr, "dos", "table", "dos partition table"),
        (gpt, "gpt", "table", "gpt partition table"),
        (gpt_copy, "gpt", "table", "gpt partition table"),
        (lvm, "LVM2_member", "raid", "LVM2_member (a member of an array or volume group)"),
        (md, "linux_raid_member", "raid", "linux_raid_member (a member of an array or volume group)"),
    ],
    ids=["ext4", "swap", "MBR", "GPT", "GPT without its start", "LVM", "md"],
)
def test_signature_is_found(make: Callable[[Path], None], kind: str, usage: str, words: str, image: Path) -> None:
    make(image)
    found = content(image)
    assert (found.label, found.bad_label) == (None, "")
    assert [(signature.kind, signature.usage, str(signature)) for signature in found.signatures] == [(kind, usage, words)]


def test_places_are_told(image: Path) -> None:
    mbr(image)
    assert content(image).signatures == (Signature("dos", "table", 510),)


def test_two_things_on_one_disk_are_both_found(image: Path) -> None:
    mbr(image)
    md(image)
    assert {signature.kind for signature in content(image).signatures} == {"dos", "linux_raid_member"}


def test_damaged_file_system_is_found(image: Path) -> None:
    made_by("mkfs.ext4", "-qF")(image)
    put(image, 1024 + 0x3FC, b"\xff\xff\xff\xff")  # its checksum
    assert [signature.kind for signature in content(image).signatures] == ["ext4"]


def test_blank_disk_has_nothing(image: Path) -> None:
    assert content(image) == Content()


def test_label_alone_is_a_label_alone(image: Path) -> None:
    put(image, 0, WHOLE)
    assert content(image) == Content(LABEL, "", ())


def test_bad_label_is_told(image: Path) -> None:
    put(image, 0, WHOLE[:600])
    assert content(image) == Content(None, "its label is damaged (the CRC-32C is wrong)", ())


def test_file_system_over_the_label_disarms(image: Path) -> None:
    put(image, 0, WHOLE)
    made_by("mkfs.ext4", "-qF")(image)
    assert content(image).label is None


def test_node_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskError) as caught, opened(str(tmp_path / "none")):
        pytest.fail("opened")
    assert str(caught.value) == (
        f"cannot open {tmp_path}/none: No such file or directory. Run it as root, or join the group hwvirt."
    )


def test_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, image: Path) -> None:
    signatures._library.cache_clear()
    monkeypatch.setattr(signatures, "_LIBRARY", "libblkid.so.none")
    with pytest.raises(DiskError) as caught:
        content(image)
    signatures._library.cache_clear()
    assert str(caught.value) == "libblkid.so.none is missing. Install it: apt-get install libblkid1."
