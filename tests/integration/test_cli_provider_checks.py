"""`promptyard providers --check`: one call to each provider, and what to do about those that fail."""

from __future__ import annotations

from pathlib import Path

import command
import pytest

from worker.simulator import process

SECRET = "sk-this-is-a-secret-key-0123456789"


@pytest.fixture
def promptyard(simulator: process.Simulator, tmp_path: Path) -> command.Command:
    return command.Command(PROMPTYARD_SIMULATOR=simulator.url, PROMPTYARD_HOME=str(tmp_path))


def test_each_provider_that_answers_is_ok(promptyard: command.Command, simulator: process.Simulator) -> None:
    done = promptyard("providers", "--check", "--json")
    assert (done.status, done.err) == (0, "")
    checks = {check["provider"]: check for check in done.json["checks"]}
    assert set(checks) == {"groq", "cerebras", "zai", "openai", "anthropic", "gemini"}
    assert all(check["ok"] and check["latency_ms"] >= 0 for check in checks.values())
    assert checks["gemini"]["model"] == "gemini-3.5-flash-lite"  # the first that a chain names
    assert simulator.bill().calls == 6


@pytest.mark.parametrize(
    ("fault", "error_class", "advice"),
    [
        ("auth", "auth", "check GROQ_API_KEY"),
        ("out_of_credit", "quota", "add credit"),
        ("rate_limited", "rate_limited", "the key works"),
        ("overloaded", "overloaded", "too much to do"),
        ("server_error", "transient", "in trouble itself"),
        ("reset", "transient", "can be reached"),
        ("malformed", "malformed", "speaks the dialect openai_chat"),
    ],
)
def test_a_provider_that_fails_is_named_with_what_to_do(
    promptyard: command.Command, simulator: process.Simulator, fault: str, error_class: str, advice: str
) -> None:
    simulator.set_faults(f"groq:{fault}")
    done = promptyard("providers", "--check")
    assert done.status == 1
    (line,) = [line for line in done.out.splitlines() if " groq " in line]
    assert line.startswith(error_class)
    assert advice in line
    assert sum(line.startswith("ok") for line in done.out.splitlines()) == 5
    assert "1 of 6 providers cannot be used now." in done.err


def test_a_key_is_never_printed_and_a_server_that_is_not_there_is_told(tmp_path: Path) -> None:
    registry = tmp_path / "registry.toml"
    registry.write_text("""
        extends = "default"
        [providers.local]
        dialect = "openai_chat"
        base_url = "http://127.0.0.1:9/v1"
        key_env = "LOCAL_API_KEY"
        models.small.context_window = 4096
    """)
    environment = {"PROMPTYARD_HOME": str(tmp_path), "PROMPTYARD_REGISTRY": str(registry)}
    done = command.Command(**environment, LOCAL_API_KEY=SECRET)("providers", "--check")
    assert done.status == 1
    (line,) = [line for line in done.out.splitlines() if " local " in line]
    assert "cannot be reached" in line and "http://127.0.0.1:9/v1" in line
    assert SECRET not in done.out + done.err
    assert "Left out, since no key is set: groq (GROQ_API_KEY)" in done.err


def test_a_key_with_a_line_break_is_told_without_a_call(tmp_path: Path) -> None:
    environment = {"PROMPTYARD_HOME": str(tmp_path), "GROQ_API_KEY": f"{SECRET}\n{SECRET}"}
    done = command.Command(**environment)("providers", "--check")
    assert done.status == 1
    assert "GROQ_API_KEY holds a blank, a line break" in done.out
    assert SECRET not in done.out + done.err


def test_without_any_key_the_variables_are_named(tmp_path: Path) -> None:
    done = command.Command(PROMPTYARD_HOME=str(tmp_path))("providers", "--check")
    assert done.status == 2
    assert "GROQ_API_KEY" in done.err
