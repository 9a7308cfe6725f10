"""How each provider tells of its rate limits: headers on every answer, and the 429.

Formats after the providers' documentation: OpenAI and Groq write Go durations, Anthropic RFC 3339 times,
Cerebras float seconds, Gemini a RetryInfo in the body, Z.ai nothing at all.
"""

from __future__ import annotations

import datetime
import email.utils
import math
import time
from typing import Any

from worker.simulator import flavours, limits, refusal_table
from worker.simulator import settings as simulator_settings

Headers = dict[str, str]

_TYPE = "type.googleapis.com/google.rpc."
_GEMINI_QUOTA = {
    "requests": "GenerateRequestsPerMinutePerProjectPerModel",
    "tokens": "GenerateContentInputTokensPerModelPerMinute",
    "day": "GenerateRequestsPerDayPerProjectPerModel",
    "concurrency": "GenerateConcurrentRequestsPerProjectPerModel",
}
_CEREBRAS_WINDOWS = {"requests": "requests-minute", "tokens": "tokens-minute", "day": "requests-day"}
_SPANS = {
    "requests": "requests per minute (RPM)",
    "tokens": "tokens per minute (TPM)",
    "day": "requests per day (RPD)",
    "concurrency": "concurrent requests",
}


def headers(flavour: flavours.Flavour, limiter: limits.Limiter, now: float) -> Headers:
    """What every answer of the provider says about the limits that are set."""
    if not limiter.counts or flavour in ("gemini", "zai"):
        return {}
    if flavour == "anthropic":
        return _anthropic(limiter, now)
    if flavour == "cerebras":
        return _cerebras(limiter, now)
    # Groq's "requests" are those of a day, everybody else's those of a minute.
    requests = limiter.day if flavour == "groq" else limiter.requests
    found: Headers = {}
    for name, window in (("requests", requests), ("tokens", limiter.tokens)):
        if window is not None:
            found[f"x-ratelimit-limit-{name}"] = str(window.limit)
            found[f"x-ratelimit-remaining-{name}"] = str(window.remaining())
            found[f"x-ratelimit-reset-{name}"] = go_duration(window.reset_s(now))
    return found


def _anthropic(limiter: limits.Limiter, now: float) -> Headers:
    found: Headers = {}
    for name, window in (("requests", limiter.requests), ("tokens", limiter.tokens)):
        if window is not None:
            reset = time.time() + window.reset_s(now)
            stem = f"anthropic-ratelimit-{name}"
            found[f"{stem}-limit"] = str(window.limit)
            found[f"{stem}-remaining"] = str(window.remaining())
            at = datetime.datetime.fromtimestamp(math.ceil(reset), datetime.UTC)
            found[f"{stem}-reset"] = at.strftime("%Y-%m-%dT%H:%M:%SZ")
    return found


def _cerebras(limiter: limits.Limiter, now: float) -> Headers:
    found: Headers = {}
    for name, window in (
        ("requests-day", limiter.day),
        ("requests-minute", limiter.requests),
        ("tokens-minute", limiter.tokens),
    ):
        if window is not None:
            found[f"x-ratelimit-limit-{name}"] = str(window.limit)
            found[f"x-ratelimit-remaining-{name}"] = str(window.remaining())
            found[f"x-ratelimit-reset-{name}"] = f"{window.reset_s(now):.6f}"
    return found


def refusal(
    flavour: flavours.Flavour,
    scope: simulator_settings.Scope,
    limit: int,
    wait_s: float,
    form: simulator_settings.RetryForm,
    code: str | None = None,
) -> tuple[refusal_table.Refusal, Headers, list[dict[str, Any]]]:
    """A 429 in the provider's words: the refusal, its headers, and Gemini's details."""
    said = _words(flavour, scope, limit)
    if code:
        said = said._replace(code=code)
    if form == "message" or (form == "native" and flavour in ("openai", "groq", "generic")):
        said = said._replace(message=f"{said.message} Please try again in {go_duration(wait_s)}.")
    details: list[dict[str, Any]] = []
    if flavour == "gemini":
        violation = {"quotaId": code or _GEMINI_QUOTA[scope], "quotaValue": str(limit)}
        details.append({"@type": f"{_TYPE}QuotaFailure", "violations": [violation]})
    if form == "retry_info" or (form == "native" and flavour == "gemini"):
        details.append(
            {"@type": f"{_TYPE}RetryInfo", "retryDelay": f"{wait_s:.9f}".rstrip("0").rstrip(".") + "s"}
        )
    extra = _retry_headers(flavour, wait_s, form)
    if form == "native" and flavour == "cerebras" and scope in _CEREBRAS_WINDOWS:
        # It sends no Retry-After: the reset of what is used up is all there is.
        name = _CEREBRAS_WINDOWS[scope]
        extra |= {
            f"x-ratelimit-limit-{name}": str(limit),
            f"x-ratelimit-remaining-{name}": "0",
            f"x-ratelimit-reset-{name}": f"{wait_s:.6f}",
        }
    return said, extra, details


def _retry_headers(flavour: flavours.Flavour, wait_s: float, form: simulator_settings.RetryForm) -> Headers:
    whole_s = str(math.ceil(wait_s))
    if form == "native":
        if flavour in ("gemini", "zai", "cerebras"):
            return {}
        found = {"retry-after": whole_s}
        if flavour == "openai":
            found["retry-after-ms"] = str(math.ceil(wait_s * 1000))
        return found
    if form == "seconds":
        return {"retry-after": whole_s}
    if form == "float_seconds":
        return {"retry-after": f"{wait_s:.3f}"}
    if form == "retry_after_ms":
        return {"retry-after-ms": str(math.ceil(wait_s * 1000))}
    if form == "http_date":
        # A date has whole seconds: one more never lets the client come too early.
        return {"retry-after": email.utils.formatdate(math.ceil(time.time() + wait_s), usegmt=True)}
    return {}


def _words(flavour: flavours.Flavour, scope: simulator_settings.Scope, limit: int) -> refusal_table.Refusal:
    span = _SPANS[scope]
    if flavour == "anthropic":
        message = f"This request would exceed your organization's rate limit of {limit} {span}."
        return refusal_table.Refusal(429, "rate_limit_error", "", message)
    if flavour == "gemini":
        return refusal_table.Refusal(429, "RESOURCE_EXHAUSTED", "", "You exceeded your current quota.")
    if flavour == "zai":
        words = {
            "requests": ("1303", "High frequency usage of this API, please reduce the frequency"),
            "tokens": ("1303", "High frequency usage of this API, please reduce the frequency"),
            "day": ("1304", "You have reached the daily limit for API calls"),
            "concurrency": ("1302", "High concurrency usage of this API, please reduce concurrency"),
        }
        return refusal_table.Refusal(429, "", *words[scope])
    if flavour == "cerebras":
        kind = "token" if scope == "tokens" else "request"
        message = f"{span[0].upper()}{span[1:]} limit exceeded - too many {kind}s processed."
        return refusal_table.Refusal(429, "too_many_requests_error", f"{kind}_quota_exceeded", message, "quota")
    kind = "tokens" if scope == "tokens" else "requests"
    message = f"Rate limit reached for this model on {span}: Limit {limit}, Used {limit}."
    return refusal_table.Refusal(429, kind, "rate_limit_exceeded", message)


def go_duration(seconds: float) -> str:
    """A duration as Go prints it: `120ms`, `7.66s`, `6m0s`, `23h18m29.144s`. Rounded up to milliseconds."""
    ms = math.ceil(seconds * 1000 - 1e-6)
    if ms < 1000:
        return f"{ms}ms" if ms else "0s"
    minutes, rest_ms = divmod(ms, 60_000)
    text = f"{rest_ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if not minutes:
        return text
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
