"""A folder for what a lab has on disk, which does not outlive its launcher."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hwvirt.lab.process import LabError, lab_missing

__all__ = ["passing_folder"]

# Kernels that are being killed at the same moment may still make files: until they have gone it is tried again.
_KEEPER = 'cat >/dev/null; while [ -e "$1" ]; do rm -rf "$1" 2>/dev/null || sleep 0.1; done'


@contextmanager
def passing_folder() -> Iterator[Path]:
    """A new folder that goes with the context, or with this process, whichever way that ends. Raises LabError."""
    folder = Path(tempfile.mkdtemp(prefix="hwvirt-lab-"))
    command = ["/usr/bin/busybox", "sh", "-c", _KEEPER, "sh", str(folder)]
    try:
        keeper = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    except OSError as error:
        folder.rmdir()
        raise LabError(f"cannot start a lab: {error}.", next_step=lab_missing()) from error
    with keeper:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)  # what is still there goes when the keeper hears of our end
