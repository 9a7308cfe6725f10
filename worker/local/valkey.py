"""How to start, ask and stop the embedded Valkey."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
from pathlib import Path
from typing import IO

from worker.local import folder

NAME = "valkey"
STOP = signal.SIGTERM

#: Handed over by standard input, so that the password is in no argument and no further file.
CONFIGURATION = """\
bind 127.0.0.1
port {port}
tcp-backlog 128
requirepass {password}
daemonize no
logfile ""
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


class Valkey:
    """Drives one `valkey-server`, standing in the server's folder."""

    def __init__(self, program: Path) -> None:
        self.program = program
        self.here = folder.Folder(Path())

    def prepare(self, last_pid: int | None) -> None:
        """Make the data folder unless it is there."""
        self.here.data.mkdir(mode=0o700, exist_ok=True)

    def start(self, port: int, output: IO[bytes]) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [self.program, "-"],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=output,
            cwd=self.here.data,  # it never needs the path that leads there
            close_fds=False,
        )
        assert process.stdin is not None
        # If it ends before it has read this, its log says why.
        with contextlib.suppress(BrokenPipeError), process.stdin as configuration:
            configuration.write(CONFIGURATION.format(port=port, password=self.here.password()).encode())
        return process

    def is_ready(self, pid: int, port: int) -> bool:
        """It knows the password and has read its data: until then PING is answered with an error."""
        try:
            with socket.socket() as connection:
                connection.settimeout(1)
                connection.connect(("127.0.0.1", port))
                connection.sendall(f"AUTH {self.here.password()}\r\nPING\r\n".encode())
                with connection.makefile("rb") as answers:
                    return answers.readline() == b"+OK\r\n" and answers.readline() == b"+PONG\r\n"
        except OSError:
            return False


def url(password: str, port: int) -> str:
    return f"redis://:{password}@127.0.0.1:{port}/0"
