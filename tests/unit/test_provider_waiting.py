"""Every form in which a provider says how long to wait."""

from __future__ import annotations

import datetime

import pytest

from worker.providers import waiting

DATE = "Mon, 23 Nov 2026 10:00:00 GMT"


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


@pytest.mark.parametrize(
    ("message", "seconds"),
    [
        # Anthropic names the zone, Z.ai means Beijing's without saying so; a day alone is its beginning
        ("You will regain access on 2026-11-24 at 00:00 UTC.", 14 * 3600.0),
        ("Your limit will reset at 2026-11-23 18:30:00", 1800.0),
        ("您的限额将在 2026-11-23 18:30:00 重置。", 1800.0),
        ("Access returns 2026-11-24.", 14 * 3600.0),
        ("Your limit will reset at 2026-11-23 17:00:00", 0.0),  # it is over
        ("Your limit will reset at 2030-01-01 00:00:00", None),  # years: no advice
        ("Your limit will reset at 2026-13-41 00:00:00", None),
    ],
)
def test_a_date_in_the_message_is_waited_for(message: str, seconds: float | None) -> None:
    assert waiting.retry_after_s({"date": DATE}, message) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("16m33.562s", 993.562),
        ("23h18m29.144s", 83909.144),
        ("1d2h", 93600.0),
        ("500µs", 0.0005),
        ("2026-11-23T10:00:59Z", 59.0),
        ("2026-11-23T11:00:59+01:00", 59.0),
        ("2026-11-23T09:00:00Z", 0.0),
        ("33011.382867", 33011.382867),
        ("0", 0.0),
        ("1795428059", 59.0),
        ("1795428059000", 59.0),
        ("soon", None),
        ("", None),
        ("6m0", None),
    ],
)
def test_a_reset_is_read_in_every_form(text: str, seconds: float | None) -> None:
    assert waiting.reset_s(text, DATE) == pytest.approx(seconds)


def test_the_wait_is_until_the_last_of_what_is_used_up() -> None:
    headers = {
        "x-ratelimit-remaining-requests-minute": "0",
        "x-ratelimit-reset-requests-minute": "11.38",
        "x-ratelimit-remaining-tokens-hour": "0",
        "x-ratelimit-reset-tokens-hour": "900.5",
        "x-ratelimit-remaining-requests-day": "5",
        "x-ratelimit-reset-requests-day": "33011.38",
    }
    assert waiting.exhausted_reset_s(headers, DATE) == 900.5
    assert waiting.exhausted_reset_s({"x-ratelimit-remaining-requests": "0"}, DATE) is None


@pytest.mark.parametrize(
    ("date", "hours"),
    [
        ("Mon, 23 Nov 2026 10:00:00 GMT", 22),  # 02:00 in California
        ("Thu, 23 Jul 2026 10:00:00 GMT", 21),  # 03:00, in summer
    ],
)
def test_googles_day_ends_at_midnight_in_california(date: str, hours: int) -> None:
    assert waiting.until_midnight_pacific_s(date) == hours * 3600


def test_a_date_without_the_answers_own_is_held_against_the_clock() -> None:
    then = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=2)
    seconds = waiting.retry_after_s({"retry-after": then.strftime("%a, %d %b %Y %H:%M:%S GMT")})
    assert seconds is not None
    assert 100 < seconds <= 120
