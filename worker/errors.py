"""Every error that Promptyard raises on purpose.

    PromptyardError
    ├── SettingsError        the environment or a command's options are wrong
    ├── RegistryError        the registry file is wrong, or serves nothing that is asked for
    ├── InputError           an input file cannot be taken at all
    │   └── LineError        one line of it is wrong; the rest can run
    ├── ServerError          Postgres or Redis cannot be used
    │   ├── SchemaError      the database has another schema version
    │   └── EmbeddedError    an embedded server did not start
    ├── BatchError           the batch does not exist, or is in a state that forbids the request
    └── CallError            a call to a provider did not give an answer (see `worker.providers.errors`)

A message says what is wrong and what to do. It never holds a key or the text of a prompt. The command prints
it in one line and exits with status 2.
"""

from __future__ import annotations


class PromptyardError(Exception):
    """Something went wrong that the message explains."""


class SettingsError(PromptyardError):
    """The environment or the options of the command are wrong."""


class RegistryError(PromptyardError):
    """The registry file is wrong, or serves nothing that is asked for."""


class InputError(PromptyardError):
    """An input file cannot be taken at all."""


class LineError(InputError):
    """One line of the input is wrong.

    Attributes:
        line_no: number of the line in its file, from 1.
        source: name of the file, `-` for standard input.
        reason: what is wrong and what to do, without the text of the line.
    """

    def __init__(self, reason: str, *, line_no: int, source: str) -> None:
        super().__init__(f"{source}:{line_no}: {reason}")
        self.reason = reason
        self.line_no = line_no
        self.source = source


class ServerError(PromptyardError):
    """Postgres or Redis cannot be used."""


class SchemaError(ServerError):
    """The database has another schema version than this release."""


class EmbeddedError(ServerError):
    """An embedded server did not start."""


class BatchError(PromptyardError):
    """The batch does not exist, or is in a state that forbids the request."""
