"""The command `promptyard` as a process of its own, on the test's servers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

TIMEOUT_S = 60


class Done(NamedTuple):
    """What a command left."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def last_line(self) -> str:
        return self.out.splitlines()[-1]


class Command:
    """Runs the command with an environment."""

    def __init__(self, **environment: str) -> None:
        self.environment = environment

    def with_(self, **environment: str) -> Command:
        return Command(**{**self.environment, **environment})

    def __call__(self, *arguments: object, stdin: str = "") -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "worker", *map(str, arguments)],
            input=stdin,
            capture_output=True,
            text=True,
            env=self.full_environment(),
            timeout=TIMEOUT_S,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def full_environment(self) -> Mapping[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "PYTHONPATH") if name in os.environ}
        return {**kept, **self.environment}
