"""A kernel boots, runs programs, loses its power, and leaves nothing behind."""

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hwvirt.lab.kernel import SHARE_IN_GUEST, Kernel, ProgramFailed
from hwvirt.lab.process import LabError
from hwvirt.units import Deadline

pytestmark = pytest.mark.lab

SOON = 20.0


def soon() -> Deadline:
    return Deadline.after(SOON)


def living(folder: Path) -> list[int]:
    """Every process whose command line names the folder; a kernel's boot folder is in that of all its processes."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            arguments = command.read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if bytes(folder) + b"/hwvirt-lab-" in arguments:
            found.append(int(command.parent.name))
    return found


def test_a_program_runs_and_its_output_comes_back(kernel: Kernel) -> None:
    assert kernel.run(["uname", "-sn"], soon()) == "Linux a\n"


def test_our_own_python_runs_there_and_its_output_is_no_terminal(kernel: Kernel) -> None:
    program = "import sys, hwvirt.units; print(hwvirt.units.__file__, sys.prefix, sys.stdout.isatty())"
    output = kernel.run([sys.executable, "-c", program], soon())
    import hwvirt.units

    assert output.split() == [hwvirt.units.__file__, sys.prefix, "False"]


def test_a_program_knows_that_its_kernel_is_one_of_the_lab(kernel: Kernel) -> None:
    program = "import hwvirt.lab.boot; print(hwvirt.lab.boot.in_guest())"
    assert kernel.run([sys.executable, "-c", program], soon()) == "True\n"


def test_a_program_may_be_named_by_a_relative_path(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    assert kernel.run(["bin/pwd"], soon()) == f"{SHARE_IN_GUEST}\n"


def test_a_program_that_fails_tells_its_status_and_its_output(kernel: Kernel) -> None:
    with pytest.raises(ProgramFailed) as caught:
        kernel.run(["sh", "-c", "printf half; exit 7"], soon())
    assert (caught.value.status, caught.value.output) == (7, "half\n")
    assert str(caught.value) == (
        f"kernel a: sh -c 'printf half; exit 7' ended with status 7. See {kernel.console}."
    )


def test_standard_error_goes_to_the_console(kernel: Kernel) -> None:
    kernel.run(["sh", "-c", "echo for the console >&2"], soon())
    assert "for the console\n" in kernel.console.read_text()


def test_variables_of_kernel_and_program_reach_the_program(tmp_path: Path) -> None:
    with Kernel("a", tmp_path, environment={"OURS": "it's one"}) as kernel:
        output = kernel.run(["sh", "-c", 'echo "$OURS, $MINE"'], soon(), environment={"MINE": "a $two"})
    assert output == "it's one, a $two\n"


def test_a_job_answers_its_input_line_by_line_and_takes_a_signal(kernel: Kernel) -> None:
    job = kernel.start(["cat"])
    for text in ("one", "two words", ""):
        job.send(f"{text}\n".encode(), soon())
        assert job.line(soon()) == text
    kernel.signal(job, "TERM")
    assert job.line(soon()) is None
    assert job.wait(soon()) == 128 + signal.SIGTERM


def test_long_output_comes_whole_and_in_order(kernel: Kernel) -> None:
    assert kernel.run(["seq", "100000"], soon()) == "".join(f"{n}\n" for n in range(1, 100001))


def test_zeroes_in_the_output_are_output(kernel: Kernel) -> None:
    assert kernel.run(["printf", "a\\0b\\0pid x\\n"], soon()) == "a\0b\0pid x\n"


def test_jobs_run_side_by_side_and_lines_are_used_again(kernel: Kernel) -> None:
    waiting = kernel.start(["cat"])
    for number in range(14):
        assert kernel.run(["echo", str(number)], soon()) == f"{number}\n"
    waiting.send(b"still here\n", soon())
    assert waiting.line(soon()) == "still here"


def test_the_share_is_the_same_folder_on_both_sides(kernel: Kernel) -> None:
    (kernel.share / "question").write_text("from the launcher")
    kernel.run(["cp", str(SHARE_IN_GUEST / "question"), str(SHARE_IN_GUEST / "answer")], soon())
    assert (kernel.share / "answer").read_text() == "from the launcher"


def test_modules_load_and_their_helper_is_found(kernel: Kernel) -> None:
    assert "loop" in kernel.run(["sh", "-c", "modprobe loop && lsmod"], soon())


def test_power_off_writes_back_and_power_cut_does_not(tmp_path: Path) -> None:
    image = tmp_path / "disk.img"
    image.write_bytes(bytes(1 << 20))
    with Kernel("a", tmp_path, disks=[image]) as kernel:
        job = kernel.start(["sh", "-c", "exec 3</dev/ubda; echo open; cat"])  # the last close would write back
        assert job.line(soon()) == "open"
        kernel.run(["dd", "if=/dev/urandom", "of=/dev/ubda", "bs=4k", "count=1"], soon())
        kernel.power_cut()
        assert not any(image.read_bytes())
        kernel.power_on()
        job = kernel.start(["sh", "-c", "exec 3</dev/ubda; echo open; cat"])
        assert job.line(soon()) == "open"
        kernel.run(["sh", "-c", "yes | dd of=/dev/ubda bs=4k count=1"], soon())
        kernel.power_off(soon())
    assert image.read_bytes() == (b"y\n" * 2048).ljust(1 << 20, b"\0")


@pytest.fixture(params=["namespace", "process group"])
def isolation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ways to hold a kernel together; the second is for systems that forbid namespaces."""
    if request.param == "process group":
        monkeypatch.setattr("hwvirt.lab.process.namespace_command", tuple)


@pytest.mark.usefixtures("isolation")
def test_power_cut_leaves_no_process_and_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    kernel = Kernel("a", tmp_path / "a")
    kernel.power_on()
    kernel.wait_up(soon())
    job = kernel.start(["sleep", "60"])
    job.pid(soon())
    assert len(living(tmp_path)) >= 3
    kernel.power_cut()
    assert living(tmp_path) == []
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]
    with pytest.raises(LabError, match="sleep: the kernel has gone"):
        job.wait(soon())


@pytest.mark.usefixtures("isolation")
def test_clean_power_off_leaves_no_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Kernel("a", tmp_path) as kernel:
        kernel.wait_up(soon())
        assert len(living(tmp_path)) >= 3
        kernel.power_off(soon())
    assert living(tmp_path) == []


def test_a_kernel_dies_with_its_launcher(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path\n"
        "from hwvirt.lab.kernel import Kernel; from hwvirt.units import Deadline\n"
        "kernel = Kernel('a', Path(sys.argv[1])); kernel.power_on(); kernel.wait_up(Deadline.after(20))\n"
        "print('up', flush=True); time.sleep(60)"
    )
    launcher = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert launcher.stdout is not None
    with launcher.stdout as output:
        assert output.readline() == b"up\n"
    pids = living(tmp_path)
    assert len(pids) >= 3
    ends = [os.pidfd_open(pid) for pid in pids]
    for pid in pids:
        if Path(f"/proc/{pid}/comm").read_text() == "linux.uml\n":
            os.kill(pid, signal.SIGSTOP)  # a kernel that hangs cannot end by itself
    launcher.kill()
    launcher.wait()
    for end in ends:
        assert select.select([end], [], [], SOON)[0], "a process of the kernel outlived its launcher"
        os.close(end)
    assert list(tmp_path.glob("hwvirt-lab-*")) == []


def test_a_kernel_that_dies_at_boot_tells_its_last_words(tmp_path: Path) -> None:
    kernel = Kernel("a", tmp_path, memory_bytes=1 << 20)
    with kernel, pytest.raises(LabError, match=r"^kernel a has gone\. Its last words: .*console\.log\.$"):
        kernel.wait_up(soon())


def test_a_kernel_that_panics_ends_its_jobs_with_what_they_had_said(tmp_path: Path) -> None:
    with Kernel("a", tmp_path) as kernel:
        job = kernel.start(["sh", "-c", "echo before; read go; echo c >/proc/sysrq-trigger; sleep 60"])
        assert job.line(soon()) == "before"
        job.send(b"\n", soon())
        with pytest.raises(LabError, match="sh: the kernel has gone"):
            job.wait(soon())
        with pytest.raises(LabError, match="kernel a has gone"):
            kernel.run(["true"], soon())


def test_a_kernel_without_power_refuses_work(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"^kernel a is off$"):
        Kernel("a", tmp_path).run(["true"], soon())


def test_a_program_that_does_not_exist_is_named(kernel: Kernel) -> None:
    with pytest.raises(LabError, match=r"^kernel a: there is no program no-such-program$"):
        kernel.run(["no-such-program"], soon())
