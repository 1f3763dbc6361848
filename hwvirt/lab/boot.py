"""What a kernel is told at boot: its command line, and a folder of settings for the guest's first process."""

from __future__ import annotations

import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hwvirt.lab.cables import EthernetEnd, SerialEnd
from hwvirt.lab.process import LabError

__all__ = ["CONTROL_TTY", "JOB_TTYS", "exports", "guest_settings", "in_guest", "make_boot_folder", "uml_arguments"]

CONTROL_TTY = 63
JOB_TTYS = range(51, 63)

_INIT = Path(__file__).parent / "guest" / "init.sh"
_BOOT_FOLDER = "LAB_BOOT"  # init.sh reads it
_PACKAGE_ROOT = Path(__file__).parents[2]
_COVERED = tuple(map(Path, ("/tmp", "/run", "/mnt", "/dev", "/proc", "/sys")))  # noqa: S108 - what init.sh mounts over
_QUICK = (  # self-benchmarks of raid6 and xor take 0.9 s of a boot, 256 legacy terminals 0.3 s
    "initcall_blacklist=raid6_select_algo,calibrate_xor_blocks,init_zswap",
    "pty.legacy_count=0",
    "quiet",
)
_PYTHON = {"PYTHONPATH": str(_PACKAGE_ROOT), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
_MALLOC = {  # memory that is given back comes back page fault by page fault, and one costs 100 us in a guest
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}


def make_boot_folder(share: Path, disks: Sequence[Path], place: Path | None = None) -> Path:
    """A new folder with init.sh and links to share and disks: they keep long and odd paths off the kernel's command line."""
    boot = Path(tempfile.mkdtemp(prefix="hwvirt-lab-", dir=place))
    if shlex.quote(str(boot)) != str(boot):
        boot.rmdir()
        raise LabError(f"the kernel's command line cannot carry {boot}.", next_step="Set TMPDIR to a plain path.")
    (boot / "uml").mkdir()
    (boot / "share").symlink_to(share)
    for number, disk in enumerate(disks):
        (boot / f"ubd{number}").symlink_to(disk)
    init = boot / "init"
    shutil.copyfile(_INIT, init)
    init.chmod(0o755)
    return boot


def guest_settings(name: str, ethernet: Iterable[EthernetEnd], environment: Mapping[str, str]) -> str:
    """The file `settings` that init.sh reads: assignments of a shell."""
    keep = sorted({Path(sys.prefix), Path(sys.base_prefix), _PACKAGE_ROOT})
    settings = {
        "KERNEL_NAME": name,
        "CONTROL": f"/dev/ttyS{CONTROL_TTY}",
        "KEEP": "\n".join(str(path) for path in keep if any(path.is_relative_to(top) for top in _COVERED)),
        "ADDRESSES": " ".join(f"vec{number}={end.address}" for number, end in enumerate(ethernet)),
    }
    lines = [f"{key}={shlex.quote(value)}" for key, value in settings.items()]
    return "\n".join(lines) + "\n" + exports({**_PYTHON, **_MALLOC, **environment})


def exports(environment: Mapping[str, str]) -> str:
    """Shell lines that set and export variables."""
    return "".join(f"export {key}={shlex.quote(value)}\n" for key, value in environment.items())


def in_guest(command_line: Path = Path("/proc/cmdline")) -> bool:
    """Whether the kernel that runs this is one of the lab's: it was booted as `uml_arguments` says."""
    return any(word.startswith(f"{_BOOT_FOLDER}=") for word in command_line.read_text().split())


def uml_arguments(
    boot: Path,
    name: str,
    memory_bytes: int,
    lines: Mapping[int, int],
    ethernet: Sequence[EthernetEnd],
    serial: Sequence[SerialEnd],
    disks: int,
) -> list[str]:
    """The command line; `lines` is the descriptor of each serial line that control and jobs use. Ref: linux.uml --help."""
    return [
        "linux.uml", f"mem={memory_bytes >> 20}M", f"umid={name}", f"uml_dir={boot}/uml/",
        "rootfstype=hostfs", "rootflags=/", "ro", "noreboot", "panic=-1", f"init={boot}/init", f"{_BOOT_FOLDER}={boot}",
        "con=null", "con0=null,fd:1", "ssl=null", *_QUICK,
        *(f"ssl{tty}=fd:{descriptor}" for tty, descriptor in lines.items()),
        *(f"ssl{number}=fd:{end.fileno()}" for number, end in enumerate(serial)),
        *(f"vec{number}:transport=fd,fd={end.fileno()},mac={end.mac}" for number, end in enumerate(ethernet)),
        *(f"ubd{number}={boot}/ubd{number}" for number in range(disks)),
    ]  # fmt: skip
