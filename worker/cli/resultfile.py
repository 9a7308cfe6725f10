"""Results written to a file that is whole or not there."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from worker import errors


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file beside `path` that takes its place when all is written, and vanishes when something breaks.

    Raises:
        SettingsError: the folder does not exist or cannot be written to.
    """
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as e:
        raise errors.SettingsError(
            f"{path} cannot be written: {e.strerror}. Choose another file with -o."
        ) from None
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
        # mkstemp opens for the owner alone; a result file gets what any new file gets.
        umask = os.umask(0)
        os.umask(umask)
        Path(temporary).chmod(0o666 & ~umask)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
