"""Loop devices: attached with the block size asked for, detached for good. Only devices attached here are touched."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from hwvirt.disk import loopdev
from hwvirt.disk.linux import logical_block_bytes, size_bytes
from hwvirt.disk.loopdev import LoopConfig, LoopDevice, LoopInfo64
from hwvirt.errors import DiskError
from hwvirt.scsi.volume import Access
from hwvirt.units import Deadline

SIZE = 1 << 20

needs_root = [
    pytest.mark.root,
    pytest.mark.skipif(
        os.geteuid() != 0 or not Path("/dev/loop-control").exists(), reason="loop devices need root and /dev/loop-control"
    ),
]


@pytest.fixture
def image(tmp_path: Path) -> Iterator[str]:
    path = tmp_path / "disk.img"
    path.touch()
    os.truncate(path, SIZE)
    yield str(path)
    assert str(path) not in attached_files().values()


def attached_files() -> dict[str, str]:
    """Device name → file, as the kernel tells it."""
    return {
        found.parts[3]: found.read_text().rstrip("\n") for found in Path("/sys/block").glob("loop*/loop/backing_file")
    }


def wait_until_detached(below: str) -> None:
    """Returns when nothing below this path is attached: udev may have a device open for a moment."""
    deadline = Deadline.after(30.0)
    while found := [file for file in attached_files().values() if file.startswith(below)]:
        assert not deadline.expired, found
        time.sleep(0.01)


def test_structures_have_the_kernel_s_sizes() -> None:
    assert ctypes.sizeof(LoopInfo64) == struct.calcsize("=5Q4I64s64s32s2Q") == 232
    assert ctypes.sizeof(LoopConfig) == 304
    assert (LoopInfo64.flags.offset, LoopInfo64.file_name.offset, LoopConfig.info.offset) == (52, 56, 8)


class TestAttached:
    pytestmark = needs_root

    @pytest.mark.parametrize("block_bytes", [512, 4096])
    def test_device_shows_the_file_with_the_block_size(self, image: str, block_bytes: int) -> None:
        with LoopDevice(image, block_bytes) as device:
            fd = os.open(device.path, os.O_RDWR)
            try:
                assert (size_bytes(fd), logical_block_bytes(fd)) == (SIZE, block_bytes)
                os.pwrite(fd, b"here" * 1024, 8192)
                os.fsync(fd)
            finally:
                os.close(fd)
            assert attached_files()[Path(device.path).name] == image
        assert Path(image).read_bytes()[8192 : 8192 + 4] == b"here"

    def test_read_only_device_refuses_writes(self, image: str) -> None:
        with LoopDevice(image, 512, access=Access.READ_ONLY) as device:
            assert Path(f"/sys/block/{Path(device.path).name}/ro").read_text() == "1\n"
            with pytest.raises(PermissionError):
                Path(device.path).write_bytes(bytes(512))

    def test_detach_waits_for_the_last_opener_and_says_who_to_ask(self, image: str) -> None:
        device = LoopDevice(image, 512)
        fd = os.open(device.path, os.O_RDONLY)
        try:
            with pytest.raises(DiskError) as caught:
                device.detach(Deadline.after(0.05))
            with pytest.raises(DiskError, match="is still open elsewhere"):
                device.detach(Deadline.after(0.05))
        finally:
            os.close(fd)
        assert str(caught.value) == (
            f"{device.path} is still open elsewhere. "
            f"Close whatever uses it (fuser -v {device.path}); it then detaches itself."
        )
        device.detach()
        device.detach()
        assert image not in attached_files().values()

    def test_device_of_a_process_that_is_killed_goes_with_the_last_opener(self, image: str) -> None:
        program = "from hwvirt.disk.loopdev import LoopDevice; print(LoopDevice(input(), 512).path, flush=True); input()"
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            print(image, file=process.stdin, flush=True)
            path = process.stdout.readline().strip()
            fd = os.open(path, os.O_RDONLY)
            process.kill()
        try:
            assert attached_files()[Path(path).name] == image
            os.close(fd)
            wait_until_detached(image)
        finally:
            if image in attached_files().values():
                subprocess.run(["losetup", "-d", path], check=True)

    def test_device_that_is_taken_in_between_is_left_alone(self, image: str, monkeypatch: pytest.MonkeyPatch) -> None:
        configure = loopdev._configure
        races = iter(range(3))

        def lose_three_races(node: loopdev._Node, config: LoopConfig) -> None:
            if next(races, None) is not None:
                raise OSError(errno.EBUSY, "taken")
            configure(node, config)

        monkeypatch.setattr(loopdev, "_configure", lose_three_races)
        with LoopDevice(image, 512) as device:
            assert attached_files()[Path(device.path).name] == image

    def test_older_kernels_take_the_calls_that_loop_configure_replaced(
        self, image: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        call = loopdev._Node.call

        def without_configure(node: loopdev._Node, request: int, argument: int | ctypes.Structure = 0) -> int:
            if request == loopdev._LOOP_CONFIGURE:
                raise OSError(errno.EINVAL, "unknown ioctl")
            return call(node, request, argument)

        monkeypatch.setattr(loopdev._Node, "call", without_configure)
        with LoopDevice(image, 4096) as device:
            fd = os.open(device.path, os.O_RDONLY)
            try:
                assert logical_block_bytes(fd) == 4096
            finally:
                os.close(fd)

    def test_devices_attached_at_once_are_different(self, tmp_path: Path) -> None:
        images = [tmp_path / f"{number}.img" for number in range(6)]
        for image in images:
            image.touch()
            os.truncate(image, SIZE)
        with ThreadPoolExecutor(len(images)) as pool:
            devices = list(pool.map(lambda image: LoopDevice(str(image), 512), images))
        try:
            files = attached_files()
            assert [files[Path(device.path).name] for device in devices] == [str(image) for image in images]
        finally:
            for device in devices:
                device.detach()


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DiskError) as caught:
        LoopDevice(str(tmp_path / "none.img"), 512)
    assert str(caught.value) == f"cannot open {tmp_path / 'none.img'}: No such file or directory."
