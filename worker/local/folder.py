"""The folder of one embedded server: its files, its locks, its state.

    <home>/postgres/            mode 0700, of the user that the server runs as
        data/                   what the server keeps
        log                     what the server and its keeper say
        password                mode 0600
        state.json              the running server, written by its keeper
        users.lock              shared: a process uses the server; exclusive: the keeper stops it
        start.lock              exclusive: a process starts a keeper
        keeper.lock             exclusive: the keeper lives
        server.lock             exclusive: the server, or a child that it left behind, lives

The kernel drops a lock when its holder ends, however it ends, so no pid of an earlier life is ever trusted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from worker import errors

LOCKS = ("users", "start", "keeper", "server")
#: How often a lock is asked for again, in seconds.
POLL_S = 0.01


class State(NamedTuple):
    """What the keeper says about its server."""

    pid: int
    #: When the process started, by `processes.started`: together with the pid it names one process for ever.
    started: str
    port: int
    version: str
    #: It takes connections.
    ready: bool


class Folder:
    """Paths and locks of one server's folder; a keeper stands in it and uses `Folder(Path())`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.data = path / "data"
        self.log = path / "log"
        self.password_file = path / "password"
        self.state_file = path / "state.json"

    def open_lock(self, name: str) -> int:
        """Open a lock file and return its descriptor, which no child inherits.

        Raises:
            EmbeddedError: the folder is not ours or is damaged.
        """
        try:
            return os.open(self.path / f"{name}.lock", os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as e:
            raise errors.EmbeddedError(
                f"Cannot open {self.path / name}.lock: {e.strerror}. Set PROMPTYARD_HOME to another folder."
            ) from None

    def locked(self, name: str) -> bool:
        """Does anybody hold this lock for itself?"""
        fd = self.open_lock(name)
        try:
            return not try_lock(fd, fcntl.LOCK_SH)
        finally:
            os.close(fd)

    @contextlib.contextmanager
    def holding(self, name: str, timeout_s: float) -> Iterator[int]:
        """Hold a lock exclusively; gives its descriptor, which may be handed to a child to hold on.

        Raises:
            EmbeddedError: others held it all the time.
        """
        fd = self.open_lock(name)
        try:
            deadline = time.monotonic() + timeout_s
            while not try_lock(fd, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise errors.EmbeddedError(
                        f"Another process has held {self.path.absolute() / name}.lock for {timeout_s:.0f} s. "
                        f"End it (`fuser {self.path.absolute() / name}.lock` names it) and try again."
                    )
                time.sleep(POLL_S)
            yield fd
        finally:
            os.close(fd)

    def state(self) -> State | None:
        """What the last keeper wrote, whether or not it lives."""
        try:
            return State(**json.loads(_read(self.state_file)))
        except (OSError, ValueError, TypeError):
            return None

    def write_state(self, state: State) -> None:
        new = self.state_file.with_suffix(".new")
        new.write_text(json.dumps(state._asdict()))
        new.rename(self.state_file)

    def password(self) -> str:
        return _read(self.password_file).strip()

    def reason(self, offset: int = 0) -> str:
        """The line of the log, after `offset` bytes, that most likely says why the server ended."""
        with self.log.open("rb") as log:
            log.seek(offset)
            lines = [line.decode(errors="replace").strip() for line in log if line.strip()]
        blunt = [line for line in lines if "FATAL" in line or "PANIC" in line or "error" in line.lower()]
        return (blunt or lines or ["it said nothing"])[-1]


def _read(path: Path) -> str:
    # As root we read in a folder that belongs to another user, who must not choose what we read.
    with open(path, opener=lambda name, flags: os.open(name, flags | os.O_NOFOLLOW)) as file:
        return file.read()


def try_lock(fd: int, kind: int) -> bool:
    """Take a lock if that needs no waiting."""
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def find(home: Path, name: str) -> Folder | None:
    """The server's folder if it is there and may be looked at."""
    folder = Folder(home / name)
    return folder if os.access(folder.path / "users.lock", os.R_OK | os.W_OK) else None


def make(home: Path, name: str) -> Folder:
    """Find or make the folder of a server, and the home around it.

    A home that exists is left as it is, whatever its mode: it may be anybody's. Only what we make gets a mode
    and, when we are root, an unprivileged owner: the owner of the home, or `nobody`.

    Raises:
        EmbeddedError: the folder cannot be made or belongs to somebody else.
    """
    folder = Folder(home / name)
    try:
        try:
            owner = folder.path.stat()
        except FileNotFoundError:
            _make_home(home)
            _make_whole(folder.path, _server_user(home))
            owner = folder.path.stat()
    except OSError as e:
        raise errors.EmbeddedError(
            f"Cannot make {folder.path}: {e.strerror}. Set PROMPTYARD_HOME to a folder of your own."
        ) from None
    me = os.geteuid()
    # As root we serve whoever owns the folder, but never as root.
    if owner.st_uid == 0 if me == 0 else owner.st_uid != me:
        raise errors.EmbeddedError(
            f"{folder.path} belongs to user {owner.st_uid} and so cannot hold data of an embedded server. "
            "Set PROMPTYARD_HOME to another folder."
        )
    return folder


def _make_home(home: Path) -> None:
    if home.exists():
        return
    home.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        home.mkdir(mode=0o700)
        with _opened(home) as descriptor:
            _give(descriptor, _server_user(home))


def _make_whole(path: Path, owner: tuple[int, int] | None) -> None:
    """Make a server's folder aside and move it into place, so that nobody ever sees half of it."""
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))  # mode 0700
    with _opened(aside) as descriptor:
        for name in LOCKS:
            flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
            lock = os.open(f"{name}.lock", flags, 0o600, dir_fd=descriptor)
            _give(lock, owner)
            os.close(lock)
        _give(descriptor, owner)
    try:
        aside.rename(path)
    except OSError as e:
        shutil.rmtree(aside)
        # Another command that starts at the same time was faster.
        if e.errno not in {errno.ENOTEMPTY, errno.EEXIST}:
            raise


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor of a folder just made: nobody can exchange what root gives away by it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _give(descriptor: int, owner: tuple[int, int] | None) -> None:
    if owner:
        os.fchown(descriptor, *owner)


def _server_user(home: Path) -> tuple[int, int] | None:
    """The user and group that servers run as when we are root; nothing when we are not."""
    if os.geteuid() != 0:
        return None
    owner = home.stat()
    try:
        user = pwd.getpwuid(owner.st_uid) if owner.st_uid else pwd.getpwnam("nobody")
    except KeyError:
        raise errors.EmbeddedError(
            "There is no unprivileged user to run the servers as. Create a user `nobody`, or run Promptyard "
            "as another user than root."
        ) from None
    return user.pw_uid, user.pw_gid
