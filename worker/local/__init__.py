"""Embedded Postgres and Valkey, started on demand and stopped when nobody uses them.

A process that calls `servers.use` holds a shared lock until it ends. Each server has a keeper, a small
process that starts it, again when it dies, and stops it once it gets that lock for itself. The keepers use
the standard library only, to be up in milliseconds: everything here but `servers` must stay importable
without any installed package.
"""

from __future__ import annotations
