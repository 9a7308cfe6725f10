"""From an answer that is an error to a `CallError` of the class that says what can be done about it.

The markers are those of the vendors' own documentation and SDKs. Codes of different providers do not collide,
so one table serves all: the first row that fits decides, and the status where none does. A server whose codes
mean something else says so in the registry (`own_class`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from worker.providers import said, waiting
from worker.providers.types import CallError, ErrorClass, Reply, Usage

#: Characters of a provider's message that are kept.
MAX_MESSAGE = 500
#: Keys shorter than this are words like `none` for a local server, and may stand in any text.
MIN_KEY = 8


class Row(NamedTuple):
    """One way an error is recognised: by a code, or by its message."""

    error_class: ErrorClass
    codes: frozenset[str] = frozenset()
    text: re.Pattern[str] | None = None
    statuses: frozenset[int] | None = None  #: None: whatever the status


def _row(error_class: ErrorClass, codes: str = "", text: str = "", statuses: set[int] | None = None) -> Row:
    return Row(
        error_class,
        frozenset(codes.split()),
        re.compile(text, re.IGNORECASE) if text else None,
        frozenset(statuses) if statuses else None,
    )


TABLE: tuple[Row, ...] = (
    # Out of money or of the day's quota. OpenAI; Z.ai (1113 no balance, 1304/1308/1310 window used up, 1309
    # plan ended); Anthropic's limits of the contract and of the user's own making; Gemini's credits.
    _row(
        ErrorClass.QUOTA,
        "insufficient_quota credit_balance_exhausted organization_spend_limit_exceeded"
        " project_spend_limit_exceeded organization_usage_limit_exceeded billing_hard_limit_reached"
        " billing_not_active billing_error enforced_spend_limit_reached contract_spend_limit_reached"
        " blocked_api_access payment_required 1113 1304 1308 1309 1310",
        r"specified API usage limits|credit balance is too low"
        r"|prepa(id|yment) credits|spend(ing)? (limit|cap)",
    ),
    # A day's requests or tokens: Gemini's quotaId, and what Groq, Cerebras and OpenAI write.
    _row(ErrorClass.QUOTA, "per_day", r"\bper[- ]day\b|\b[RT]PD\b|daily (request|token)s? limit", {402, 429}),
    _row(ErrorClass.RATE_LIMITED, "per_minute", statuses={402, 429}),
    # One request above what the account may send in a minute: it never passes here, whatever the window of
    # the model. Groq says so with 413, OpenAI with 429.
    _row(ErrorClass.CONFIG, text=r"request too large.{0,200}tokens per min", statuses={413, 429}),
    # Too long for this model. Z.ai 1261.
    _row(
        ErrorClass.CONTEXT,
        "context_length_exceeded request_too_large 1261",
        r"maximum context length|context (length|window) (is )?exceed|exceeds? (the )?(available )?context"
        r"|prompt is too long"
        r"|input token count.{0,40} exceeds|reduce the length of the (messages|prompt)",
        {400, 413, 422},
    ),
    # A content policy. Z.ai 1301.
    _row(
        ErrorClass.CONTENT,
        "content_policy_violation content_filter 1301",
        r"content filter(ing)? policy|content management policy|violat\w* .{0,20}(usage|content) polic"
        r"|input was flagged",
        {400, 403, 422},
    ),
    # No such model, here or for this account. Z.ai 1211.
    _row(
        ErrorClass.CONFIG,
        "model_not_found model_not_active model_decommissioned model_permission_blocked_org"
        " model_permission_blocked_project not_found_error not_found 1211",
        statuses={400, 403, 404, 410},
    ),
    # The key or the account. Gemini answers 400 to a wrong key; Z.ai 1000-1004, 1112 and 1121 locked.
    _row(
        ErrorClass.AUTH,
        "invalid_api_key wrong_api_key authentication_error permission_error permission_denied"
        " unauthenticated api_key_invalid api_key_expired api_key_service_blocked failed_precondition"
        " account_deactivated unsupported_country_region_territory ip_not_authorized"
        " 1000 1001 1002 1003 1004 1112 1121",
        r"API key (not valid|expired)|(invalid|incorrect|wrong) API key|location is not supported",
        {400, 401, 403, 429, 434},
    ),
    # Slow down, not only wait. Groq's flex tier answers 498, Cerebras 429 with queue_exceeded, Z.ai 1305 and
    # 1312 where the model is busy with others.
    _row(
        ErrorClass.OVERLOADED,
        "slow_down server_is_overloaded overloaded_error capacity_exceeded queue_exceeded engine_overloaded"
        " over_capacity 1305 1312",
        r"overloaded|over capacity|capacity exceeded|experiencing high (traffic|demand)",
        {429, 498, 500, 502, 503, 529},
    ),
    # The model wrote what the server could not use; another try is another draw. Groq.
    _row(ErrorClass.MALFORMED, "json_validate_failed tool_use_failed output_parse_failed", statuses={400, 422}),
    # Wait as told. Z.ai 1302/1303; Anthropic's ramp limit.
    _row(
        ErrorClass.RATE_LIMITED,
        "rate_limit_exceeded rate_limit_error ramp_limit_exceeded resource_exhausted 1302 1303",
        statuses={429, 403},
    ),
    # A parameter that this provider or model lacks, which another may have. Z.ai 1210-1215.
    _row(
        ErrorClass.CONFIG,
        "unsupported_parameter unsupported_value unknown_parameter 1210 1212 1213 1214 1215",
        r"\b(is|are) (deprecated|unsupported|not (supported|enabled|available))|does not support|unknown name"
        r"|extra inputs are not permitted|cannot both be specified|unrecognized request argument"
        # more output than the model can write: Anthropic, Gemini
        r"|max_tokens: \d+ > \d+|supported range is",
        {400, 422},
    ),
    _row(ErrorClass.PROMPT, "conflict_error", statuses={409}),
)

#: What a status means where nothing in the body is known.
BY_STATUS: Mapping[int, ErrorClass] = {
    400: ErrorClass.PROMPT,
    401: ErrorClass.AUTH,
    402: ErrorClass.QUOTA,
    403: ErrorClass.AUTH,
    404: ErrorClass.CONFIG,
    405: ErrorClass.CONFIG,
    408: ErrorClass.TRANSIENT,
    409: ErrorClass.TRANSIENT,
    413: ErrorClass.CONTEXT,
    422: ErrorClass.PROMPT,
    425: ErrorClass.TRANSIENT,
    429: ErrorClass.RATE_LIMITED,
    434: ErrorClass.AUTH,
    435: ErrorClass.CONTEXT,
    498: ErrorClass.OVERLOADED,
    499: ErrorClass.TRANSIENT,
    529: ErrorClass.OVERLOADED,
}


#: What is worth another call at the same place, unless the server says otherwise.
_RETRIED = frozenset({ErrorClass.RATE_LIMITED, ErrorClass.OVERLOADED, ErrorClass.TRANSIENT})
#: A limit that is told to last this long is one of the day, whatever it calls itself.
DAY_LIMIT_FROM_S = 3600.0


def classify(reply: Reply, usage: Usage | None = None) -> CallError:
    """Understand an answer that is an error, by its body or by its status."""
    heard = said.read(reply.body)
    status = reply.status
    if status < 300 and heard.status is not None:
        status = heard.status  # a proxy's 200 around a provider's error
    message = heard.message or f"HTTP {reply.status}"
    if status < 300 and not heard.message:
        message = "the answer is neither a completion nor an error"
    if 300 <= status < 400:
        message = f"HTTP {status}: a redirect, which is not followed; correct base_url"
    wait_s = _wait_s(reply, status, heard)
    return CallError(
        _heeded(_error_class(status, heard), status, wait_s, reply.headers.get("x-should-retry")),
        scrub(message)[:MAX_MESSAGE],
        status=reply.status,
        usage=usage,
        retry_after_s=wait_s,
        body=scrub(reply.body.decode("utf-8", "replace")),
    )


def own_class(reply: Reply, own: Mapping[str, ErrorClass]) -> ErrorClass | None:
    """The class that the registry gives to a code or type of the answer, or to its status; None for none."""
    heard = said.read(reply.body)
    codes = {code.lower(): error_class for code, error_class in own.items()}
    found = next((codes[code] for code in sorted(heard.codes) if code in codes), None)
    return found or codes.get(str(reply.status))


def scrub(text: str, key: str | None = None) -> str:
    """Take out what looks like a key, as providers repeat a wrong one, and what Postgres cannot hold."""
    if key is not None and len(key) >= MIN_KEY:
        text = text.replace(key, "[key]")
    return _KEYS.sub("[key]", text).replace("\0", "\ufffd")


_KEYS = re.compile(
    r"\b(?:sk|gsk|csk|xai|pk|rk|key)[-_][\w*.-]{6,}"  # OpenAI, Anthropic, Groq, Cerebras and their like
    r"|\bAIza[\w-]{16,}|\bAQ\.[\w-]{16,}"  # Google
    r"|\b[0-9a-f]{32}\.\w{8,}"  # Z.ai
    r"|(?<=Bearer )[\w.*~+/=-]{6,}"
)


def _error_class(status: int, heard: said.Said) -> ErrorClass:
    for row in TABLE:
        if row.statuses is not None and status >= 300 and status not in row.statuses:
            continue
        if row.codes & heard.codes or (row.text is not None and row.text.search(heard.message)):
            return row.error_class
    if status in (400, 422) and heard.param and not heard.param.startswith(("messages", "input", "contents")):
        return ErrorClass.CONFIG  # one parameter is refused here; the next provider may know it
    if status in BY_STATUS:
        return BY_STATUS[status]
    if status >= 500 and status != 501:
        return ErrorClass.TRANSIENT
    return ErrorClass.MALFORMED if status < 300 else ErrorClass.CONFIG


def _wait_s(reply: Reply, status: int, heard: said.Said) -> float | None:
    """Seconds to wait: as told, or until what is used up is there again."""
    date = reply.headers.get("date")
    wait_s = waiting.retry_after_s(reply.headers, heard.message, heard.retry_delay)
    if "per_day" in heard.codes:
        # Google's RetryInfo speaks of the minute even where the day's quota is gone.
        wait_s = max(wait_s or 0.0, waiting.until_midnight_pacific_s(date))
    if wait_s is None and status == 429:
        wait_s = waiting.exhausted_reset_s(reply.headers, date)
        if wait_s is None:
            wait_s = waiting.exhausted_reset_s(heard.headers, date)
    return wait_s


def _heeded(error_class: ErrorClass, status: int, wait_s: float | None, should_retry: str | None) -> ErrorClass:
    """The class, corrected by what the server says about coming again."""
    if error_class is ErrorClass.RATE_LIMITED and wait_s is not None and wait_s >= DAY_LIMIT_FROM_S:
        return ErrorClass.QUOTA
    if should_retry == "false" and error_class in _RETRIED and wait_s is None:
        return ErrorClass.CONFIG  # not here, not now: the next route at once
    if should_retry == "true" and error_class in (ErrorClass.PROMPT, ErrorClass.CONFIG) and status >= 400:
        return ErrorClass.TRANSIENT
    return error_class
