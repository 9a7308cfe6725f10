"""Every form in which a provider says how long to wait."""

from __future__ import annotations

import datetime

import pytest

from worker.providers import waiting


@pytest.mark.parametrize(
    ("headers", "message", "retry_delay", "seconds"),
    [
        ({"retry-after": "20"}, "", None, 20.0),
        ({"retry-after": "1.5"}, "", None, 1.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, "", None, 0.25),  # the more exact one
        (
            {"retry-after": "Mon, 23 Nov 2026 10:00:30 GMT", "date": "Mon, 23 Nov 2026 10:00:00 GMT"},
            "",
            None,
            30.0,
        ),
        (
            {"retry-after": "Mon, 23 Nov 2026 09:59:00 GMT", "date": "Mon, 23 Nov 2026 10:00:00 GMT"},
            "",
            None,
            0.0,
        ),
        ({}, "", "22s", 22.0),  # Gemini
        ({}, "", "22.5s", 22.5),
        ({}, "Rate limit reached. Please try again in 5.289s. Visit …", None, 5.289),  # Groq
        ({}, "Please try again in 6m0s.", None, 360.0),  # OpenAI
        ({}, "Please try again in 120ms.", None, 0.12),
        ({}, "Please try again in 23h18m29.144s.", None, 83909.144),
        ({}, "Please retry in 36.2s.", None, 36.2),  # Gemini's message
        ({}, "Please retry after 7 seconds", None, 7.0),
        ({}, "Please try again later", None, None),
        ({"retry-after": "soon"}, "", None, None),
        ({"retry-after": "nan"}, "", None, None),
        ({"retry-after": "inf"}, "", None, None),
        ({"retry-after": "-5"}, "", None, 0.0),
        ({"retry-after": "9" * 12}, "", None, None),  # months: no advice
        ({}, "", "soon", None),
        ({}, "", None, None),
    ],
)
def test_the_wait_is_read_as_it_was_told(
    headers: dict[str, str], message: str, retry_delay: str | None, seconds: float | None
) -> None:
    assert waiting.retry_after_s(headers, message, retry_delay) == pytest.approx(seconds)


def test_a_date_without_the_answers_own_is_held_against_the_clock() -> None:
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=2)
    seconds = waiting.retry_after_s({"retry-after": then.strftime("%a, %d %b %Y %H:%M:%S GMT")})
    assert seconds is not None
    assert 100 < seconds <= 120
