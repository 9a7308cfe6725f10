"""What the body of an error says: in the shape of OpenAI, Google or Anthropic, flat, or as bare text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec


class Said(NamedTuple):
    """What the body of an error says, whatever its shape."""

    message: str = ""
    codes: frozenset[str] = frozenset()  #: code, type, status, reasons; in lower case
    param: str | None = None  #: the parameter that is refused
    status: int | None = None  #: an HTTP status that stands in the body
    retry_delay: str | None = None  #: Google's RetryInfo
    headers: Mapping[str, str] = {}  #: of the provider behind OpenRouter, in lower case


def read(body: bytes) -> Said:
    """Read any of the shapes: OpenAI's, Google's, Anthropic's, flat ones, a list of one, a bare text."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return Said()
    if isinstance(answer, list) and answer:
        answer = answer[0]
    if not isinstance(answer, dict):
        return Said()
    error = answer.get("error")
    if isinstance(error, str):
        return Said(error)
    if not isinstance(error, dict):
        flat = _flat(answer)
        if error or not isinstance(flat, str) or "choices" in answer:
            return Said()
        error = {**answer, "message": flat}
    message = error.get("message")
    code, param = error.get("code"), error.get("param")
    details = list(_details(error.get("details")))
    return Said(
        message if isinstance(message, str) else "",
        frozenset(_codes(error, details)),
        param if isinstance(param, str) else None,
        code if isinstance(code, int) and 400 <= code < 600 else None,
        next((d["retryDelay"] for d in details if isinstance(d.get("retryDelay"), str)), None),
        _headers(error.get("metadata")),
    )


def _flat(answer: dict[str, Any]) -> Any:
    """The message of a body without `error`. FastAPI and Mistral list what is wrong, with the prompt in it."""
    flat = answer.get("message") or answer.get("detail")
    if isinstance(flat, dict):
        flat = flat.get("detail")
    if not isinstance(flat, list):
        return flat
    wrong = [f for f in flat if isinstance(f, dict)]
    return "; ".join(f"{_place(found.get('loc'))}: {found.get('msg')}" for found in wrong) or None


def _place(loc: Any) -> str:
    return ".".join(str(part) for part in loc) if isinstance(loc, list) else "body"


def _headers(metadata: Any) -> Mapping[str, str]:
    found = metadata.get("headers") if isinstance(metadata, dict) else None
    if not isinstance(found, dict):
        return {}
    return {name.lower(): str(value) for name, value in found.items()}


def _details(details: Any) -> Iterator[dict[str, Any]]:
    """Google sends a list of details, Anthropic one."""
    for detail in details if isinstance(details, list) else [details]:
        if isinstance(detail, dict):
            yield detail


def _codes(error: dict[str, Any], details: list[dict[str, Any]]) -> Iterator[str]:
    named = [error.get("code"), error.get("type"), error.get("status")]
    for detail in details:
        named += [detail.get("error_code"), detail.get("reason")]
        violations = detail.get("violations")
        for violation in violations if isinstance(violations, list) else []:
            quota = str(violation.get("quotaId")) if isinstance(violation, dict) else ""
            if "PerDay" in quota:
                yield "per_day"
            elif "PerMinute" in quota:
                yield "per_minute"
    for name in named:
        if isinstance(name, str | int) and not isinstance(name, bool):
            yield str(name).lower()
