"""How long a provider asks to wait."""

from __future__ import annotations

import datetime
import email.utils
import math
import re
from collections.abc import Mapping

#: Longer waits than this are no advice but an error.
MAX_WAIT_S = 7 * 86_400.0

_UNITS_S = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION = r"(?:\d+(?:\.\d+)?(?:ms|[dhms]))+"
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|[dhms])")
_ADVICE = re.compile(rf"(?:try again|retry) (?:in|after) ({_DURATION}|\d+(?:\.\d+)?)", re.IGNORECASE)


def retry_after_s(
    headers: Mapping[str, str], message: str = "", retry_delay: str | None = None
) -> float | None:
    """Seconds that the provider asked to wait, or None where it did not.

    The forms, most exact first: `retry-after-ms`, `retry-after` as a number or an HTTP date, Google's
    `RetryInfo` (`22s`), and the words `Please try again in 5.289s`.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return _bounded(milliseconds / 1000)
    header = headers.get("retry-after")
    if header is not None:
        seconds = _number(header)
        if seconds is None:
            seconds = _until(header, headers.get("date"))
        if seconds is not None:
            return _bounded(seconds)
    if retry_delay is not None and re.fullmatch(_DURATION, retry_delay):
        return _bounded(duration_s(retry_delay))
    advice = _ADVICE.search(message)
    if advice is not None:
        seconds = _number(advice[1])
        return _bounded(seconds if seconds is not None else duration_s(advice[1]))
    return None


def duration_s(text: str) -> float:
    """Seconds of a duration as Go writes it: `6m0s`, `120ms`, `23h18m29.144s`."""
    return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(text))


def _until(date: str, now: str | None) -> float | None:
    """Seconds from the answer's own date, or from the local clock, to a date."""
    then = _date(date)
    since = _date(now) if now is not None else None
    if then is None:
        return None
    return (then - (since or datetime.datetime.now(datetime.UTC))).total_seconds()


def _date(text: str) -> datetime.datetime | None:
    try:
        date = email.utils.parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=datetime.UTC)


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text is not None else None
    except ValueError:
        return None
    return number if number is not None and math.isfinite(number) else None


def _bounded(seconds: float) -> float | None:
    """A wait in the past is no wait; one of months is no advice."""
    return max(seconds, 0.0) if seconds <= MAX_WAIT_S else None
