"""Processes told apart for certain, and ports."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

#: Below the ports that systems hand to outgoing connections: a client that tries again and again to reach a
#: dead server on one of those can end up connected to itself and take the port.
PORTS = range(20_000, 32_768)


def started(pid: int) -> str | None:
    """When a living process started, in the system's own words; the same pid used again reads otherwise.

    Source: field 22 of /proc/<pid>/stat, proc_pid_stat(5); elsewhere `ps`.
    """
    if sys.platform == "linux":
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            return None
        return None if fields[0] == "Z" else fields[19]
    ps = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(ps, capture_output=True, text=True, check=False).stdout.strip() or None


def is_alive(pid: int) -> bool:
    """Does a process with this pid run? Dead children of ours are buried first."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return False  # somebody else's by now: ours ran as our own user
    # A dead process that we took over may never be buried where process 1 is not an init.
    return sys.platform != "linux" or started(pid) is not None


def is_free(port: int) -> bool:
    """Could a server listen on this port of the loopback interface?"""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do
        try:
            probe.bind(("127.0.0.1", port))
            # An address can be bound twice as long as nobody listens, so ask for that as well.
            probe.listen(1)
        except OSError as e:
            if e.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True


def free_port() -> int:
    """A port that nobody listens on just now."""
    return next(port for port in random.sample(PORTS, len(PORTS)) if is_free(port))
