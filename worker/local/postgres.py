"""How to make, start, ask and stop the embedded Postgres."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
from pathlib import Path
from typing import IO

from worker import errors
from worker.local import folder

NAME = "postgres"
MAJOR = "18"
USER = "promptyard"
DATABASE = "promptyard"
#: Fast shutdown: transactions are rolled back, clients are cut off.
STOP = signal.SIGINT

#: Written at every start. Prompts can stand in statements and in the details of errors: neither is logged.
CONFIGURATION = """\
# Written by Promptyard at every start. For settings of your own use ALTER SYSTEM.
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = ''
password_encryption = 'scram-sha-256'
max_connections = 200
shared_buffers = '128MB'
max_wal_size = '2GB'
wal_level = 'minimal'
max_wal_senders = 0
max_logical_replication_workers = 0
random_page_cost = 1.1
jit = off
timezone = 'UTC'
log_timezone = 'UTC'
log_line_prefix = '%m [%p] '
log_checkpoints = off
log_error_verbosity = 'terse'
log_min_error_statement = 'panic'
"""


class Postgres:
    """Drives the programs in one `bin` folder, standing in the server's folder."""

    def __init__(self, program: Path, reach: str) -> None:
        """`reach` is a path by which the server itself gets to its folder."""
        self.program = program
        self.reach = reach
        self.here = folder.Folder(Path())

    def prepare(self, last_pid: int | None) -> None:
        """Make the data folder unless it is there, and clear away what a killed server left.

        To be called while nothing of the server lives.

        Raises:
            EmbeddedError: the data is of another version, or cannot be made.
        """
        data = self.here.data
        if not data.exists():
            self._initdb()
        version = (data / "PG_VERSION").read_text().strip()
        if version != MAJOR:
            raise errors.EmbeddedError(
                f"{data.absolute()} was written by PostgreSQL {version}, and the embedded one is {MAJOR}. "
                "Set PROMPTYARD_HOME to a new folder, "
                f"or DATABASE_URL to a PostgreSQL {version} of your own that has this data."
            )
        pid_file = data / "postmaster.pid"
        # Postgres would take whatever process has this pid by now for a running server. If it is not the
        # pid of ours, somebody runs Postgres here by hand, and Postgres sees to that itself.
        if last_pid is not None and _pid_file(pid_file)[:1] == [str(last_pid)]:
            pid_file.unlink()

    def _initdb(self) -> None:
        # Under another name until it is whole: a killed start leaves nothing that looks finished.
        new = Path("data.new")
        shutil.rmtree(new, ignore_errors=True)
        # fmt: off
        self._run(
            "initdb", "-D", f"{self.reach}/{new}", "--no-instructions",
            "--no-sync",
            "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8",
            f"--username={USER}", "--auth=scram-sha-256", f"--pwfile={self.here.password_file}",
        )
        self._run(
            "postgres", "--single", "-F", "-D", f"{self.reach}/{new}", "-c", "exit_on_error=on", "postgres",
            statement=f"CREATE DATABASE {DATABASE}\n",
        )
        # fmt: on
        new.rename(self.here.data)
        # Nobody waits for the disk: what comes into the database later is synced by Postgres itself.
        threading.Thread(target=os.sync, daemon=True).start()

    def _run(self, program: str, *arguments: str, statement: str = "") -> None:
        offset = self.here.log.stat().st_size
        with self.here.log.open("ab") as log:
            done = subprocess.run(
                [self.program.with_name(program), *arguments],
                input=statement.encode(),
                stdout=log,
                stderr=log,
                close_fds=False,  # `reach` may be a descriptor
                check=False,
            )
        if done.returncode:
            raise errors.EmbeddedError(
                f"{program} failed: {self.here.reason(offset)}. The log is {self.here.log.absolute()}"
            )

    def start(self, port: int, output: IO[bytes]) -> subprocess.Popen[bytes]:
        (self.here.data / "postgresql.conf").write_text(CONFIGURATION.format(port=port))
        return subprocess.Popen(
            [self.program, "-D", f"{self.reach}/{self.here.data}"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            close_fds=False,
        )

    def is_ready(self, pid: int, port: int) -> bool:
        """It says so in its pid file, which is what `pg_ctl start --wait` reads too."""
        lines = _pid_file(self.here.data / "postmaster.pid")
        return len(lines) > 7 and lines[0] == str(pid) and lines[3] == str(port) and lines[7] == "ready"


def url(password: str, port: int) -> str:
    return f"postgresql://{USER}:{password}@127.0.0.1:{port}/{DATABASE}"


def _pid_file(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text().splitlines()]
    except FileNotFoundError:
        return []
