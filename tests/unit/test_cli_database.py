"""How psql is told where the database is."""

from __future__ import annotations

from worker.cli import database


def test_psql_gets_every_part_of_the_url_in_its_environment() -> None:
    url = "postgresql://me%40home:p%2Fss@db.example:6543/prompts?sslmode=require"
    found = database.psql_environment(url, {"PATH": "/bin", "PGHOST": "elsewhere"})
    assert found == {
        "PATH": "/bin",
        "PGHOST": "db.example",
        "PGPORT": "6543",
        "PGUSER": "me@home",
        "PGPASSWORD": "p/ss",
        "PGDATABASE": "prompts",
        "PGSSLMODE": "require",
    }


def test_what_the_url_leaves_out_stays_as_the_user_has_it() -> None:
    found = database.psql_environment("postgresql:///prompts?host=/run/postgresql", {"PGUSER": "me"})
    assert found == {"PGUSER": "me", "PGHOST": "/run/postgresql", "PGDATABASE": "prompts"}
