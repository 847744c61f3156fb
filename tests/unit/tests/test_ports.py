"""Ports of tests: two processes are never given the same one."""

import socket
import subprocess
import sys

from tests.ports import FIRST, LAST, SIZE, free_port


def test_another_process_gets_ports_of_another_block() -> None:
    here = {free_port() for _ in range(SIZE)}
    code = "from tests.ports import free_port; print(free_port())"
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    )
    assert int(said.stdout) not in here
    assert all(FIRST <= port <= LAST for port in {*here, int(said.stdout)})


def test_a_port_that_is_taken_is_passed_over() -> None:
    port = free_port()
    assert free_port() != port, "not the same one twice in a row"
    with socket.socket() as taken:
        # As servers do: another process may have closed connections there a moment ago.
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", port))
        taken.listen()
        assert port not in {free_port() for _ in range(SIZE)}
