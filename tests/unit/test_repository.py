"""What the files around the package say agrees with the package and with each other."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest

from worker import settings
from worker.prompts import files, lines
from worker.routing import load, registry

ROOT = Path(__file__).parents[2]
LOCKS = ["requirements.lock", "requirements-flower.lock", "requirements-dev.lock"]
#: The first word of a `custom_id` in examples/mixed.jsonl, and how many there are: the traffic mix, of 60.
MIX = {"qa": 21, "code": 15, "sum": 12, "reason": 9, "multi": 3}
SECONDS = {"s": 1, "m": 60, "h": 3600}


class Service(msgspec.Struct):
    """What is looked at of a service in docker-compose.yml."""

    command: str | list[str] = ""
    image: str = ""
    user: str = ""
    environment: dict[str, str] = {}
    env_file: list[str] = []
    ports: list[str] = []
    profiles: list[str] = []
    depends_on: dict[str, dict[str, str]] = {}
    healthcheck: dict[str, Any] = {}
    stop_grace_period: str = "10s"
    read_only: bool = False
    cap_drop: list[str] = []
    security_opt: list[str] = []


class Compose(msgspec.Struct):
    services: dict[str, Service]

    @property
    def workers(self) -> dict[str, Service]:
        return {name: service for name, service in self.services.items() if name.startswith("worker-")}


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def compose() -> Compose:
    return msgspec.yaml.decode(text("docker-compose.yml"), type=Compose)


@pytest.fixture
def shipped() -> registry.Registry:
    return load.registry(settings.Settings())


def assigned(name: str) -> set[str]:
    """The variables of an env file, those that are commented out too."""
    return set(re.findall(r"^#?([A-Z_]+)=", text(name), re.MULTILINE))


# docker-compose.yml


def test_every_provider_of_the_registry_has_a_worker_service(
    compose: Compose, shipped: registry.Registry
) -> None:
    started = {tuple(service.command): service.profiles for service in compose.workers.values()}

    assert started == {("worker", provider): [provider] for provider in shipped.providers}


def test_all_workers_are_started_by_the_profiles_of_the_example_environment(compose: Compose) -> None:
    [profiles] = re.findall(r"^COMPOSE_PROFILES=(.*)$", text(".env.example"), re.MULTILINE)

    assert set(profiles.split(",")) == {service.profiles[0] for service in compose.workers.values()}


def test_ports_are_bound_to_loopback_only(compose: Compose) -> None:
    ports = [port for service in compose.services.values() for port in service.ports]

    assert len(ports) == 3
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_a_stopped_worker_has_time_for_the_longest_call(compose: Compose) -> None:
    defaults = settings.Settings()
    for name, service in compose.workers.items():
        call_deadline_s = float(service.environment["PROMPTYARD_CALL_DEADLINE_S"])
        grace_s = float(service.environment["PROMPTYARD_GRACE_S"])
        period = service.stop_grace_period
        stop_grace_s = int(period[:-1]) * SECONDS[period[-1]]

        assert defaults.call_deadline_s <= call_deadline_s < grace_s < stop_grace_s, name


def test_services_run_without_root_capabilities_or_a_writable_image(compose: Compose) -> None:
    for name, service in compose.services.items():
        assert service.read_only, name
        assert service.cap_drop == ["ALL"], name
        assert service.security_opt == ["no-new-privileges:true"], name
        assert service.user or service.image.startswith("promptyard"), f"{name} runs as root"
    assert re.findall(r"^USER (\S+)$", text("Dockerfile"), re.MULTILINE) == ["10001", "10001"]


def test_what_keeps_running_has_a_health_check_and_workers_wait_for_the_schema(compose: Compose) -> None:
    once = {"migrate", "promptyard"}
    assert {name for name, service in compose.services.items() if not service.healthcheck} == once
    for name, service in compose.workers.items():
        assert service.depends_on == {
            "postgres": {"condition": "service_healthy"},
            "valkey": {"condition": "service_healthy"},
            "migrate": {"condition": "service_completed_successfully"},
        }, name


def test_passwords_come_from_the_environment_and_are_demanded() -> None:
    composed = text("docker-compose.yml")
    demanded = set(re.findall(r"\$\{(\w+):\?", composed))

    assert demanded == {"POSTGRES_PASSWORD", "VALKEY_PASSWORD", "FLOWER_PASSWORD"}
    assert demanded | set(re.findall(r"\$\{(\w+):-", composed)) <= assigned(".env.example")
    # In an URL or an assignment, a password is a variable and never a word.
    assert not re.findall(r"(?:PASSWORD|BASIC_AUTH): (?!.*\$\{)", composed)


def test_the_example_environment_names_every_provider_key_and_holds_none(shipped: registry.Registry) -> None:
    keys = {provider.key_env for provider in shipped.providers.values() if provider.key_env}

    assert keys <= assigned(".env.example")
    assert not re.findall(r"^#?\w+(?:KEY|PASSWORD)=.+$", text(".env.example"), re.MULTILINE)


# Dockerfile


def test_the_image_has_every_file_that_its_build_copies() -> None:
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text("Dockerfile"), re.MULTILINE)
    let_through = [line[1:] for line in text(".dockerignore").splitlines() if line.startswith("!")]

    for source in " ".join(copied).split():
        assert (ROOT / source).exists(), source
        assert source.split("/")[0] in let_through, f"{source} is not let through by .dockerignore"
    assert ".env" not in let_through


def test_the_image_installs_nothing_that_is_not_locked() -> None:
    installs = re.findall(r"^RUN pip install --no-cache-dir (.+)$", text("Dockerfile"), re.MULTILINE)

    assert installs == [
        "--require-hashes -r requirements.lock",
        "--no-deps .",
        "--require-hashes -r requirements-flower.lock",
    ]


# Locked versions


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_each_package_by_hash_and_names_no_index(name: str) -> None:
    stripped = [line.strip() for line in text(name).splitlines() if line and not line.startswith("#")]
    pins = [line for line in stripped if not line.startswith("--hash=sha256:")]

    assert pins
    assert all(re.fullmatch(r"[a-z0-9._-]+==[^ ]+( ; .+)? \\", pin) for pin in pins), name
    assert not re.search(r"://|--index|--find-links|--trusted-host| @ ", text(name))


@pytest.mark.parametrize(
    ("name", "extras"),
    [
        ("requirements.lock", []),
        ("requirements-flower.lock", ["flower"]),
        ("requirements-dev.lock", ["embedded", "test", "dev"]),
    ],
)
def test_a_lock_holds_every_dependency_of_the_project(name: str, extras: list[str]) -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    wanted = list(project["dependencies"])
    for extra in extras:
        wanted += project["optional-dependencies"][extra]
    names = {re.split(r"[\[<>=;]", requirement)[0].lower() for requirement in wanted} - {"promptyard"}

    pinned = set(re.findall(r"^([a-z0-9._-]+)==", text(name), re.MULTILINE))
    assert names <= pinned, f"run .ci/lock: {name} lacks {sorted(names - pinned)}"


@pytest.mark.parametrize("name", LOCKS[1:])
def test_the_locks_agree_on_the_versions_of_the_image(name: str) -> None:
    def versions(lock: str) -> dict[str, str]:
        return dict(re.findall(r"^([a-z0-9._-]+)==([^ ]+)", text(lock), re.MULTILINE))

    image, other = versions("requirements.lock"), versions(name)
    assert {package: other.get(package) for package in image} == image


# Examples


def test_the_mixed_example_has_the_traffic_mix_and_categories_of_the_registry(
    shipped: registry.Registry,
) -> None:
    mixed = text("examples/mixed.jsonl").splitlines()
    rows = [msgspec.json.decode(row, type=dict[str, Any]) for row in mixed]
    ids = [row["custom_id"] for row in rows]

    assert Counter(custom_id.split("-")[0] for custom_id in ids) == MIX
    assert len(set(ids)) == len(ids)
    assert {row["category"] for row in rows if "category" in row} == set(shipped.categories)
    assert sum("body" in row for row in rows) == 3


@pytest.mark.parametrize(
    ("name", "prompt_count"), [("mixed.jsonl", 60), ("plain.txt", 10), ("openai_batch.jsonl", 5)]
)
def test_every_line_of_the_examples_is_taken(shipped: registry.Registry, name: str, prompt_count: int) -> None:
    keys = {provider.key_env: "key" for provider in shipped.providers.values() if provider.key_env}
    parser = lines.Parser(load.usable(shipped, keys))

    taken = []
    for item in files.Reader([ROOT / "examples" / name]):
        assert isinstance(item, files.Item)
        taken.append(parser.parse(item))

    assert len(taken) == prompt_count
