"""How long a provider asks to wait."""

from __future__ import annotations

import datetime
import email.utils
import functools
import math
import re
import zoneinfo
from collections.abc import Mapping

#: Longer waits than this are no advice but an error.
MAX_WAIT_S = 7 * 86_400.0
#: The end of a spend limit may be a month away.
MAX_RESET_S = 32 * 86_400.0

_UNITS_S = {
    "d": 86_400.0,
    "h": 3_600.0,
    "m": 60.0,
    "s": 1.0,
    "ms": 1e-3,
    "us": 1e-6,
    "µs": 1e-6,
    "ns": 1e-9,
}
_NUMBER, _UNIT = r"\d+(?:\.\d+)?", r"ms|us|µs|ns|[dhms]"
_PART = re.compile(rf"({_NUMBER})({_UNIT})")
_DURATION = rf"(?:{_NUMBER}(?:{_UNIT}))+"
_ADVICE = re.compile(rf"(?:try again|retry) (?:in|after) ({_DURATION}|{_NUMBER})", re.IGNORECASE)
#: Anthropic: "You will regain access on 2026-12-01 at 00:00 UTC." Z.ai: "Your limit will reset at
#: 2026-11-23 12:00:00", in Chinese "将在 … 重置".
_RESET = re.compile(
    r"(?:regain access on|returns|reset(?:s)? (?:at|on)|将在)\s+"
    r"(\d{4}-\d\d-\d\d)(?:(?:T| at | )(\d\d:\d\d(?::\d\d)?)(?:\s*(Z|UTC))?)?",
    re.IGNORECASE,
)
#: Z.ai writes its times without a zone, and means this one.
_BEIJING = datetime.timezone(datetime.timedelta(hours=8))
#: Numbers from here on are no seconds to wait but seconds, or milliseconds, since 1970.
_EPOCH_S, _EPOCH_MS = 1e9, 1e12


def retry_after_s(
    headers: Mapping[str, str], message: str = "", retry_delay: str | None = None
) -> float | None:
    """Seconds that the provider asked to wait, or None where it did not.

    The forms, most exact first: `retry-after-ms`, `retry-after` as a number or an HTTP date, Google's
    `RetryInfo` (`22s`), the words `Please try again in 5.289s`, and a date in the message.
    """
    milliseconds = number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _bounded(milliseconds / 1000)
    header = headers.get("retry-after")
    if header is not None:
        seconds = number(header)
        if seconds is None:
            seconds = _until(_http_date(header), headers.get("date"))
        if seconds is not None:
            return _bounded(seconds)
    if retry_delay is not None and re.fullmatch(_DURATION, retry_delay):
        return _bounded(duration_s(retry_delay))
    advice = _ADVICE.search(message)
    if advice is not None:
        seconds = number(advice[1])
        return _bounded(seconds if seconds is not None else duration_s(advice[1]))
    return _told_date_s(message, headers.get("date"))


def exhausted_reset_s(headers: Mapping[str, str], date: str | None = None) -> float | None:
    """Seconds until all is full again of which nothing remains; None where nothing is said to be used up.

    Any pair of headers `…remaining…` and `…reset…`: Cerebras says only so when to come back.

    Args:
        date: the answer's own `date` header, which times count from.
    """
    resets = []
    for name, value in headers.items():
        lower = name.lower()
        if "remaining" not in lower or number(value) != 0:
            continue
        told = headers.get(lower.replace("remaining", "reset"))
        seconds = reset_s(told, date) if told is not None else None
        if seconds is not None:
            resets.append(seconds)
    return _bounded(max(resets)) if resets else None


def reset_s(text: str, date: str | None = None) -> float | None:
    """Seconds until a window is full again, in any form that providers write.

    A Go duration (`6m0s`), seconds (`33011.38`), a time (RFC 3339), or seconds or milliseconds since 1970.

    Args:
        date: the answer's own `date` header, which times count from.
    """
    text = text.strip()
    seconds = number(text)
    if seconds is None:
        if re.fullmatch(_DURATION, text):
            return duration_s(text)
        seconds = _until(_iso_date(text), date)
    elif seconds >= _EPOCH_S:
        seconds = _until(_epoch(seconds / 1000 if seconds >= _EPOCH_MS else seconds), date)
    return max(seconds, 0.0) if seconds is not None else None


def until_midnight_pacific_s(date: str | None) -> float:
    """Seconds until the quotas that Google counts by the day begin anew."""
    now = _now(date)
    try:
        zone: datetime.tzinfo = zoneinfo.ZoneInfo("America/Los_Angeles")
    except zoneinfo.ZoneInfoNotFoundError:  # a machine without the database of time zones
        zone = datetime.timezone(datetime.timedelta(hours=-8))
    local = now.astimezone(zone)
    midnight = datetime.datetime.combine(
        local.date() + datetime.timedelta(days=1), datetime.time(), tzinfo=zone
    )
    return (midnight - now).total_seconds()


def duration_s(text: str) -> float:
    """Seconds of a duration as Go writes it: `6m0s`, `120ms`, `23h18m29.144s`."""
    return sum(float(count) * _UNITS_S[unit] for count, unit in _PART.findall(text))


def number(text: str | None) -> float | None:
    """A finite number, or None for what is none."""
    try:
        found = float(text) if text is not None else None
    except ValueError:
        return None
    return found if found is not None and math.isfinite(found) else None


def _told_date_s(message: str, date: str | None) -> float | None:
    """Seconds until a date in words."""
    found = _RESET.search(message)
    if found is None:
        return None
    day, clock, zone = found.groups()
    then = _iso_date(f"{day}T{clock or '00:00'}")
    if then is not None and clock and not zone:
        then = then.replace(tzinfo=_BEIJING)
    seconds = _until(then, date)
    return max(seconds, 0.0) if seconds is not None and seconds <= MAX_RESET_S else None


def _until(then: datetime.datetime | None, date: str | None) -> float | None:
    """Seconds from the answer's own date, or from the local clock, to a time."""
    return (then - _now(date)).total_seconds() if then is not None else None


def _now(date: str | None) -> datetime.datetime:
    return (_http_date(date) if date is not None else None) or datetime.datetime.now(datetime.UTC)


@functools.lru_cache(maxsize=64)  # the answers of a second have the same
def _http_date(text: str) -> datetime.datetime | None:
    try:
        return _aware(email.utils.parsedate_to_datetime(text))
    except (ValueError, OverflowError):
        return None


def _iso_date(text: str) -> datetime.datetime | None:
    try:
        return _aware(datetime.datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def _epoch(seconds: float) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _aware(then: datetime.datetime) -> datetime.datetime:
    return then if then.tzinfo is not None else then.replace(tzinfo=datetime.UTC)


def _bounded(seconds: float) -> float | None:
    """A wait in the past is no wait; one of months is no advice."""
    return max(seconds, 0.0) if seconds <= MAX_WAIT_S else None
