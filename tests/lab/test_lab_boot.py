"""What a kernel is told, and what is refused before it boots."""

import subprocess
from pathlib import Path

import pytest

from hwvirt.errors import UsageError
from hwvirt.lab.boot import guest_settings, in_guest, make_boot_folder, uml_arguments
from hwvirt.lab.cables import DirectEthernet, EthernetCable, SerialCable
from hwvirt.lab.kernel import Kernel
from hwvirt.lab.process import LabError, lab_missing, memory_directory


def test_settings_survive_a_shell_whatever_is_in_them() -> None:
    awkward = "it's $HOME `id` \"two\"\nlines"
    text = guest_settings("a", [], {"AWKWARD": awkward})
    output = subprocess.check_output(["sh", "-c", f"{text}\nprintf '%s|%s' \"$KERNEL_NAME\" \"$AWKWARD\""], text=True)
    assert output == f"a|{awkward}"


def test_long_and_odd_paths_stay_off_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    share = tmp_path / "with space, comma: colon"
    disk = share / "an image"
    boot = make_boot_folder(share, [disk])
    assert (boot / "share").readlink() == share
    assert (boot / "ubd0").readlink() == disk
    arguments = uml_arguments(boot, "a", 64 << 20, {63: 9}, [], [], 1)
    assert f"ubd0={boot}/ubd0" in arguments
    assert "mem=64M" in arguments
    assert "ssl63=fd:9" in arguments
    assert not any(" " in argument for argument in arguments)


def test_a_kernel_of_the_lab_is_known_by_what_it_was_told(tmp_path: Path) -> None:
    told = tmp_path / "cmdline"
    told.write_text(" ".join(uml_arguments(tmp_path, "a", 64 << 20, {}, [], [], 0)))
    assert in_guest(told)
    told.write_text("BOOT_IMAGE=/boot/vmlinuz root=/dev/sda1 NOT_LAB_BOOT=/tmp quiet\n")
    assert not in_guest(told)


def test_cables_are_numbered_by_kind_and_no_two_share_an_address() -> None:
    direct = DirectEthernet()
    with EthernetCable() as one, EthernetCable() as two, SerialCable(9600) as serial:
        ends = [end for cable in (one, two, direct) for end in cable.ends]
        assert len({end.mac for end in ends}) == len({end.ip for end in ends}) == 6
        arguments = uml_arguments(Path("/boot"), "a", 1 << 20, {}, [one.ends[0], two.ends[1]], [serial.ends[0]], 0)
        assert f"vec1:transport=fd,fd={two.ends[1].fileno()},mac={two.ends[1].mac}" in arguments
        assert f"ssl0=fd:{serial.ends[0].fileno()}" in arguments
        settings = guest_settings("a", [one.ends[0], two.ends[1]], {})
        assert f"ADDRESSES='vec0={one.ends[0].ip}/24 vec1={two.ends[1].ip}/24'\n" in settings
    direct.close()


def test_a_temporary_directory_that_the_command_line_cannot_carry_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "a b"))
    (tmp_path / "a b").mkdir()
    with pytest.raises(LabError, match=r"^the kernel's command line cannot carry .*Set TMPDIR to a plain path\.$"):
        make_boot_folder(tmp_path, [])
    assert list((tmp_path / "a b").iterdir()) == []


def test_memory_that_fits_nowhere_is_refused() -> None:
    with pytest.raises(LabError, match=r"^no place for \d+ MiB of a kernel's memory in /dev/shm or .* mounted noexec\.$"):
        memory_directory(1 << 60)


def test_a_kernel_needs_a_plain_name(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"^a kernel cannot be called 'a b': use letters, digits and _$"):
        Kernel("a b", tmp_path)


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert lab_missing() == "the lab needs Debian packages: apt install user-mode-linux"
