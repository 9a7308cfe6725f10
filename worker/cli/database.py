"""`promptyard db`: the schema, the URL and a shell of the database."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING
from urllib import parse

import typer

from worker.cli import show

if TYPE_CHECKING:
    from collections.abc import Mapping

HELP = """The database: its schema, its URL, a shell.

Example: promptyard db upgrade
"""

UPGRADE = """Bring the schema to this release's version. On a server of your own that is asked of you;
embedded ones are kept up to date by every command. Running it twice, or on two machines at once, is safe.

Example: DATABASE_URL=postgresql://me:secret@db.example/prompts promptyard db upgrade
"""

URL = """Print the database's URL, password included. psql and other clients take it.

An embedded server stops some seconds after its last user, and a client that is no command of Promptyard's
does not count: use `promptyard db shell`, or keep a command running.

Example: psql "$(promptyard db url)" -c 'SELECT * FROM spend_by_provider'
"""

SHELL = """Open psql on the database. The password is handed over in the environment, not in the arguments.

Example: promptyard db shell
"""

#: libpq's variables, https://www.postgresql.org/docs/18/libpq-envars.html, for parts of a URL's query.
LIBPQ = {"sslmode": "PGSSLMODE", "ssl": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT", "host": "PGHOST"}


def register(app: typer.Typer) -> None:
    db = typer.Typer(rich_markup_mode=None)
    db.command("upgrade", help=UPGRADE)(upgrade)
    db.command("url", help=URL)(url)
    db.command("shell", help=SHELL)(shell)
    app.add_typer(db, name="db", help=HELP)


def upgrade() -> None:
    from worker.cli import session
    from worker.ledger import schema

    where = _url()

    async def work() -> str | None:
        before = await schema.revision(where)
        await schema.upgrade(where)
        return before

    before = session.run(work())
    if before == schema.HEAD:
        print(f"The schema is at revision {schema.HEAD} already.")
    else:
        print(f"The schema is at revision {schema.HEAD} now ({'was ' + before if before else 'was none'}).")


def url() -> None:
    print(_url())


def shell() -> None:
    from worker import errors
    from worker.local import binaries

    where = _url()
    psql = shutil.which("psql")
    if psql is None:
        try:
            psql = str(binaries.postgres().with_name("psql"))
        except errors.EmbeddedError:
            raise errors.ServerError(
                "There is no psql. Install PostgreSQL's client, or connect another one to what "
                "`promptyard db url` prints."
            ) from None
    # The process that becomes psql still holds the lock that keeps an embedded server up.
    show.note("The views are listed in docs/sql.md; \\d lists tables and views, \\q leaves.")
    os.execve(psql, [psql], psql_environment(where, os.environ))  # noqa: S606 (no shell is wanted)


def psql_environment(url: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment by which libpq finds what a URL names, password included."""
    parts = parse.urlsplit(url)
    found = {
        "PGHOST": parts.hostname,
        "PGPORT": str(parts.port) if parts.port else None,
        "PGUSER": parse.unquote(parts.username) if parts.username else None,
        "PGPASSWORD": parse.unquote(parts.password) if parts.password else None,
        "PGDATABASE": parse.unquote(parts.path.lstrip("/")) or None,
    }
    for name, value in parse.parse_qsl(parts.query):
        if name in LIBPQ:
            found[LIBPQ[name]] = value
    return {**environment, **{name: value for name, value in found.items() if value}}


def _url() -> str:
    """The URL as psql takes it: `postgresql://…`, without the name of a Python driver."""
    from worker import settings
    from worker.ledger import database
    from worker.local import servers

    where = servers.use(settings.load()).database
    database.async_url(where)  # raises if it is none of Postgres
    scheme, rest = where.split("://", 1)
    return f"{scheme.partition('+')[0]}://{rest}"
