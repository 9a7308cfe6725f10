"""Lines of the input that are not taken: the first few shown, all of them written where that is asked for."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import TextIO

from worker import errors
from worker.cli import show

#: Bad lines that are shown one by one.
SHOWN = 20


class Rejects:
    """Call it with each bad line. At its end it says how many it has not shown."""

    def __init__(self, path: Path | None = None) -> None:
        """Args:
            path: where each bad line goes as JSON: `source`, `line_no`, `reason`.

        Raises:
            SettingsError: that file cannot be written.
        """
        self.count = 0
        self._path = path
        self._file: TextIO | None = None
        if path is not None:
            try:
                self._file = path.open("w", encoding="utf-8")
            except OSError as e:
                message = f"{path} cannot be written: {e.strerror}. Choose another file with --rejects."
                raise errors.SettingsError(message) from None

    def __enter__(self) -> Rejects:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self.count > SHOWN:
            where = f"; {self._path} has all of them" if self._path else ""
            show.note(f"Not taken: {self.count - SHOWN:,} more lines{where}.")

    def __call__(self, error: errors.LineError) -> None:
        self.count += 1
        if self.count <= SHOWN:
            show.note(f"Not taken: {error}")
        if self._file is not None:
            line = {"source": error.source, "line_no": error.line_no, "reason": error.reason}
            print(json.dumps(line, ensure_ascii=False), file=self._file)
