"""What is wrong is said with place, reason and next step, and with the right exit code, by the program itself."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hwvirt.controller.ask import call

from .by_hand import FIRST_BLOCKS, Desk, serving
from .kit import Ended, hwvirt, qemu_io

RIG = """\
rig: small
disks:
  first:  {{loop: {{size: 16MiB, block: 4KiB}}}}
  second: {{loop: {second}}}
controllers:
  a: {{disk: first, luns: {{0: redirect}}}}
  b: {{disk: second}}
scenarios:
  - {{name: nothing, steps: [{{judge: all}}]}}
"""


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@contextmanager
def taken_port(*, listening: bool) -> Iterator[int]:
    """A port that nobody else gets; `listening`: somebody is there."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        if listening:
            holder.listen()
        yield int(holder.getsockname()[1])


def complaint(ended: Ended) -> tuple[int, str]:
    """Exit code and the last line, which is the complaint; what came before is the log, never a traceback."""
    *log, last = ended.err.splitlines()
    assert all(re.match(r"[abc] +[a-z]+\.[a-z-]+ ", line) for line in log), ended.err
    assert ended.out == ""
    return ended.code, last.removeprefix("hwvirt: ")


# The rig file, and where a run goes.


@pytest.mark.parametrize(
    ("second", "said"),
    [
        (
            "{size: 8MiB, block: 4KiB}",
            "small.yaml:7:13: controllers.b.disk: second disk too small: the store on disk second has 2048 blocks, "
            "redirection can fill 4096 and needs 4608 with an eighth to spare. Give the store 18MiB, on a bigger disk where "
            "it must be, or write `store: {overcommit: allow}` and expect writes to fail once it is full.",
        ),
        (
            "{size: 32MiB, block: 512B}",
            "small.yaml:7:13: controllers.b.disk: blocks of 512 bytes on disk second cannot hold those of 4096 bytes on "
            "disk first. Give both disks the same block size.",
        ),
        ("{size: 32, block: 4KiB}", "small.yaml:4:25: disks.second.loop.size: size '32' has no unit; write it like 64MiB"),
    ],
    ids=["second disk too small", "block sizes differ", "size without unit"],
)
def test_rig_that_cannot_be_is_refused_before_anything_is_made(tmp_path: Path, second: str, said: str) -> None:
    (tmp_path / "small.yaml").write_text(RIG.format(second=second))
    ended = hwvirt("up", "small.yaml", cwd=tmp_path)
    assert (ended.code, ended.out, ended.err) == (2, "", f"hwvirt: {said}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


@pytest.mark.parametrize("disk", ["scsi-debug: {size: 4MiB}", "tcm-loop: {size: 4MiB}", "tcmu: {size: 4MiB}"])
def test_rig_of_the_lab_stays_off_the_kernel_of_the_machine(tmp_path: Path, disk: str) -> None:
    rig = (
        f"rig: small\ndisks: {{d: {{{disk}}}}}\ncontrollers: {{a: {{disk: d, luns: {{0: own}}}}}}\n"
        "scenarios: [{name: nothing, steps: [{judge: all}]}]\n"
    )
    (tmp_path / "small.yaml").write_text(rig)
    ended = hwvirt("up", "small.yaml", cwd=tmp_path, TMPDIR=str(tmp_path))
    said = (
        "hwvirt: rig small has disks that only a kernel of the lab makes, and this is none. "
        "`hwvirt run` boots the kernels for it; `hwvirt lab shell` boots one for a look around.\n"
    )
    assert (ended.code, ended.out, ended.err) == (2, "", said)
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_rig_that_fails_before_anything_runs_leaves_no_folder(tmp_path: Path) -> None:
    files = ", ".join(f"{name}: {{authority: none.pem, certificate: c.pem, key: k.pem}}" for name in "ab")
    link = f"link: {{ethernet: {{tls: {{files: {{{files}}}}}}}}}\n"
    (tmp_path / "small.yaml").write_text(RIG.format(second="{size: 32MiB}") + link)
    ended = hwvirt("up", "small.yaml", cwd=tmp_path, TMPDIR=str(tmp_path))
    said = "link TLS none.pem: No such file or directory. Correct `link.ethernet.tls` of the rig."
    assert (ended.code, ended.out, ended.err) == (2, "", f"hwvirt: {said}\n")
    assert [path.name for path in tmp_path.iterdir()] == ["small.yaml"]


def test_rig_file_that_is_not_there(tmp_path: Path) -> None:
    ended = hwvirt("up", "none.yaml", cwd=tmp_path)
    assert (ended.code, ended.err) == (2, "hwvirt: cannot read the rig file none.yaml: No such file or directory.\n")


def test_folder_for_runs_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(RIG.format(second="{size: 32MiB}"))
    ended = hwvirt("run", "small.yaml", "--runs", "small.yaml", cwd=tmp_path)
    assert (ended.code, ended.out) == (4, "")
    assert re.fullmatch(
        r"hwvirt: cannot write small\.yaml/[0-9TZ-]+-small-[0-9a-f]{6}: Not a directory\. "
        r"Name another folder for runs\.\n",
        ended.err,
    )


# Sockets where nobody answers.


@pytest.mark.parametrize("words", [("ctl", "status"), ("watch",)], ids=["ctl", "watch"])
@pytest.mark.parametrize(("name", "reason"), [("none.sock", "No such file or directory"), ("file", "Connection refused")])
def test_control_socket_that_is_none(tmp_path: Path, words: tuple[str, ...], name: str, reason: str) -> None:
    (tmp_path / "file").touch()
    ended = hwvirt(words[0], name, *words[1:], cwd=tmp_path)
    assert (ended.code, ended.out, ended.err) == (
        4,
        "",
        f"hwvirt: {name}: {reason}. Is the controller running, and is this its control socket?\n",
    )


# The configuration of a controller; all that can be wrong in the file itself is in test_configuration.py.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lonk": 1}, "a.json:17:3: unknown key 'lonk'. Did you mean 'link'?"),
        (
            {"luns__0__blocks": 1025},
            "controller a: LUN 0 ends at block 1024, but disk first (first.img) has 1024 blocks of 4096 bytes. "
            "Give it fewer blocks, or a bigger disk.",
        ),
        ({"luns__0__mode": "redirect"}, "a.json:10:5: luns[0]: LUN 0 needs a link. Configure `link`."),
    ],
    ids=["unknown key", "beyond the disk", "no link"],
)
def test_configuration_that_cannot_be_is_refused_with_its_place(desk: Desk, changes: dict[str, object], said: str) -> None:
    desk.own(disk__path="first.img", **changes)
    assert complaint(hwvirt("controller", "a.json", cwd=desk.folder)) == (2, said)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"disk__path": "none.img"},
            "controller a: disk first: cannot open none.img: No such file or directory. "
            "Correct `disk` in its configuration.",
        ),
        (
            {"state_dir": "secret"},
            "state directory secret: File exists. Name a directory that the controller may make and write.",
        ),
        ({"control": "first.img"}, "control socket first.img: there is a file of that name. Choose another path."),
        (
            {"control": "none/a.sock"},
            "control socket none/a.sock: No such file or directory. "
            "Give the controller a shorter path in a directory that it may write.",
        ),
    ],
    ids=["no disk", "state directory is a file", "control socket is a file", "control socket without a folder"],
)
def test_path_that_cannot_be_used(desk: Desk, changes: dict[str, object], said: str) -> None:
    desk.own(**changes)
    assert complaint(hwvirt("controller", "a.json", cwd=desk.folder)) == (4, said)
    assert (desk.folder / "first.img").stat().st_size == 1024 * 4096


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("none", "cannot read the link secret none: No such file or directory. Write the shared secret there."),
        ("first.img", "link secret first.img: the file is empty. Write the shared secret there."),
        ("/dev/zero", "/dev/zero is no link secret: it has more than 16 MiB. Write the shared secret there."),
    ],
)
def test_secret_that_cannot_be_read(desk: Desk, path: str, said: str) -> None:
    desk.b(link__secret_file=path)
    (desk.folder / "first.img").write_bytes(b"\n")
    assert complaint(hwvirt("controller", "b.json", cwd=desk.folder)) == (2, said)


def test_nbd_port_that_is_taken(desk: Desk) -> None:
    with taken_port(listening=True) as port:
        assert complaint(hwvirt("controller", desk.own(nbd={"port": port}))) == (
            4,
            f"NBD port {port} of 127.0.0.1 is taken. "
            f"Stop what listens there (ss -ltnp 'sport = :{port}'), or give port 0 for a free one.",
        )


def test_link_port_that_is_taken(desk: Desk) -> None:
    with taken_port(listening=True) as port:
        assert complaint(hwvirt("controller", desk.b(port))) == (
            4,
            f"link: 127.0.0.1:{port} is taken by another program. Choose another port, or end that program.",
        )


def test_what_a_running_controller_has_is_not_taken_from_it(desk: Desk) -> None:
    with serving(desk.own()) as first:
        assert complaint(hwvirt("controller", desk.own())) == (
            4,
            f"state directory {desk.folder}/a.state is in use by process {first.process.pid}. "
            "Stop that controller, or give this one another state directory.",
        )
        assert complaint(hwvirt("controller", desk.own(state_dir=f"{desk.folder}/other"))) == (
            4,
            f"controller a: disk first: {desk.folder}/first.img is in use: it is mounted, or another program writes to it. "
            f"Find that program with fuser -v {desk.folder}/first.img and stop it, or name another disk.",
        )
        (desk.folder / "other.img").write_bytes(bytes(1024 * 4096))
        other = desk.own(state_dir=f"{desk.folder}/other", disk__path=f"{desk.folder}/other.img")
        assert complaint(hwvirt("controller", other)) == (
            4,
            f"control socket {desk.folder}/a.sock: a running controller has it. "
            "Stop that controller, or choose another path.",
        )
        assert call(desk.folder / "a.sock", "status")["pid"] == first.process.pid


def test_socket_of_a_killed_controller_is_no_obstacle(desk: Desk) -> None:
    with serving(desk.own()) as first:
        first.process.kill()
        first.process.wait()
        first.process.returncode = 0
    assert (desk.folder / "a.sock").is_socket()
    with serving(desk.own()) as second:
        assert call(desk.folder / "a.sock", "status")["pid"] == second.process.pid
    assert not (desk.folder / "a.sock").exists()


# Two controllers that do not find together.


def test_controller_alone_gives_up_within_its_time(desk: Desk) -> None:
    with taken_port(listening=False) as port:
        config = desk.a(port, link__up_within_s=1.0)
        began = time.monotonic()
        ended = complaint(hwvirt("controller", config))
        assert 1.0 <= time.monotonic() - began < 15.0  # most of it is the start of a process
    said = f"link: nobody listens on 127.0.0.1:{port}. Start the other controller, or correct the address."
    assert ended == (4, said)


def test_controller_that_nobody_connects_to_gives_up_too(desk: Desk) -> None:
    ended = hwvirt("controller", desk.a(0, link__role="listen", link__up_within_s=0.5))
    code, said = complaint(ended)
    assert code == 4
    assert re.fullmatch(r"link: nobody has connected to 127\.0\.0\.1:\d+\. Start the other controller\.", said)


def test_peer_that_does_not_belong_here_is_refused_and_the_right_one_is_served(desk: Desk) -> None:
    (desk.folder / "wrong").write_text("something else")
    refused = {
        "does not accept the secret of this controller. Give both controllers the same secret.": {
            "link__secret_file": f"{desk.folder}/wrong"
        },
        "is called b, as this controller is. Give them different names, or correct the address.": {
            "name": "b",
            "link__peer": "a",
        },
        "is b, but the peer of this controller is c. Correct `peer` of the link, or the name of the controller.": {
            "link__peer": "c"
        },
    }
    with serving(desk.b()) as b:
        place = f"127.0.0.1:{b.link_port}"
        for said, changes in refused.items():
            config = desk.a(b.link_port, **changes)
            assert complaint(hwvirt("controller", config)) == (4, f"link: {place} {said}")
        assert complaint(hwvirt("controller", desk.a(b.link_port, name="c"))) == (
            4,
            "controller b refuses volume 0: its peer is a. Correct `peer` of the link, or the name of the controller.",
        )
        assert complaint(hwvirt("controller", desk.a(b.link_port, disk__block_bytes=512, luns__0__blocks=8))) == (
            4,
            "controller b refuses volume 0: blocks of 512 bytes asked for, the store has blocks of 4096 bytes. "
            "Give both disks the same block size.",
        )
        b.wait_for("calls itself a and does not know the secret")
        with serving(desk.a(b.link_port)) as a:
            qemu_io(f"nbd://127.0.0.1:{a.nbd_port}/lun0", "write -P 5 0 64k", "read -P 5 0 64k")


def test_start_that_failed_does_not_make_the_next_one_forget_what_is_redirected(desk: Desk) -> None:
    with serving(desk.b()) as b, serving(desk.a(b.link_port)) as a:
        qemu_io(f"nbd://127.0.0.1:{a.nbd_port}/lun0", "write -P 5 0 64k")
    for path in (desk.folder / "a.state").iterdir():
        path.unlink()  # the map is lost
    with taken_port(listening=False) as port:
        assert hwvirt("controller", desk.a(port)).code == 4  # and b is not there at first
    with serving(desk.b()) as b, serving(desk.a(b.link_port)) as a:
        qemu_io(f"nbd://127.0.0.1:{a.nbd_port}/lun0", "read -P 5 0 64k")
        assert call(desk.folder / "a.sock", "status")["luns"][0]["mapped_blocks"] == 16


def test_volume_that_is_redirected_cannot_shrink_whether_its_map_is_there_or_lost(desk: Desk) -> None:
    last, smaller_blocks = (FIRST_BLOCKS - 1) * 4096, FIRST_BLOCKS - 1
    with serving(desk.b()) as b, serving(desk.a(b.link_port)) as a:
        qemu_io(f"nbd://127.0.0.1:{a.nbd_port}/lun0", f"write -P 5 {last} 4k", "flush")
    next_step = "Correct `blocks` of the LUN: a volume that is redirected cannot shrink."
    with serving(desk.b()) as b:
        smaller = desk.a(b.link_port, luns__0__blocks=smaller_blocks)
        for whose in ("its own map", "the ledger of the second controller"):
            said = f"volume 0: it has {smaller_blocks} blocks, and {whose} knows {FIRST_BLOCKS}. {next_step}"
            assert complaint(hwvirt("controller", smaller)) == (4, said)
            for path in (desk.folder / "a.state").iterdir():
                path.unlink()
        with serving(desk.a(b.link_port)) as a:
            qemu_io(f"nbd://127.0.0.1:{a.nbd_port}/lun0", f"read -P 5 {last} 4k")
