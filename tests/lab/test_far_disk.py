"""The far disk is reached again when its kernel has lost its power meanwhile."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from hwvirt.errors import DiskError
from hwvirt.lab.far_disk import FarDisk

ONE, TWO = b'{"size":3}\none', b'{"size":3}\ntwo'


@pytest.fixture
def served() -> Iterator[Callable[..., str]]:
    """Serves one connection after the other: answers its first request so, then hangs up. Returns the address."""
    listener = socket.create_server(("127.0.0.1", 0))
    threads: list[threading.Thread] = []

    def serve(*answers: bytes) -> str:
        def all_of_them() -> None:
            for answer in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1000)
                    connection.sendall(answer)

        threads.append(threading.Thread(target=all_of_them, daemon=True))
        threads[-1].start()
        return f"127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for thread in threads:
        thread.join(20)
    listener.close()


def test_a_disk_whose_kernel_was_booted_again_answers(served: Callable[..., str]) -> None:
    disk = FarDisk(served(ONE, TWO))
    assert disk.witness() == b"one"
    assert disk.witness() == b"two"
    disk.close()


@pytest.mark.parametrize("half", [b"", b'{"si', b'{"size":3}\non'])
def test_half_an_answer_is_asked_for_again_once_and_then_an_error(half: bytes, served: Callable[..., str]) -> None:
    address = served(half, TWO, half)
    disk = FarDisk(address)
    assert disk.witness() == b"two"
    with pytest.raises(DiskError, match=rf"^the far disk at {address} does not answer: it sent .*\.$"):
        disk.witness()
    disk.close()
