"""From an answer that is an error to a `CallError` of the class that says what can be done about it.

The markers are those of the vendors' own documentation and SDKs. Codes of different providers do not collide,
so one table serves all: the first row that fits decides, and the status where none does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import msgspec

from worker.providers import waiting
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
        " 1113 1304 1308 1309 1310",
        r"specified API usage limits|credit balance is too low"
        r"|prepa(id|yment) credits|spend(ing)? (limit|cap)",
    ),
    # A day's requests or tokens: Gemini's quotaId, and what Groq, Cerebras and OpenAI write.
    _row(ErrorClass.QUOTA, "per_day", r"\bper day\b|\b[RT]PD\b|daily (request|token)s? limit", {402, 429}),
    # Too long for this model. Groq's 413 is a request above the tokens of a minute. Z.ai 1261.
    _row(
        ErrorClass.CONTEXT,
        "context_length_exceeded request_too_large 1261",
        r"maximum context length|context (length|window) (is )?exceed|prompt is too long"
        r"|input token count.{0,40} exceeds|reduce the length of the (messages|prompt)",
        {400, 413, 422},
    ),
    # A content policy. Z.ai 1301.
    _row(
        ErrorClass.CONTENT,
        "content_policy_violation content_filter 1301",
        r"content filter(ing)? policy|content management policy|violat\w* .{0,20}(usage|content) polic",
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
    # Slow down, not only wait. Groq's flex tier answers 498, Cerebras 429 with queue_exceeded.
    _row(
        ErrorClass.OVERLOADED,
        "slow_down server_is_overloaded overloaded_error capacity_exceeded queue_exceeded engine_overloaded",
        r"overloaded|experiencing high (traffic|demand)",
        {429, 498, 500, 502, 503, 529},
    ),
    # The model wrote what the server could not use; another try is another draw. Groq.
    _row(ErrorClass.MALFORMED, "json_validate_failed tool_use_failed output_parse_failed", statuses={400, 422}),
    # Wait as told. Z.ai 1302/1303/1305/1312; Anthropic's ramp limit.
    _row(
        ErrorClass.RATE_LIMITED,
        "rate_limit_exceeded rate_limit_error ramp_limit_exceeded resource_exhausted 1302 1303 1305 1312",
        statuses={429, 402, 403},
    ),
    # A parameter that this provider or model lacks, which another may have. Z.ai 1210-1215.
    _row(
        ErrorClass.CONFIG,
        "unsupported_parameter unsupported_value unknown_parameter 1210 1212 1213 1214 1215",
        r"\b(is|are) (deprecated|unsupported|not (supported|enabled|available))|does not support|unknown name"
        r"|extra inputs are not permitted|cannot both be specified|unrecognized request argument",
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


class Said(NamedTuple):
    """What the body of an error says, whatever its shape."""

    message: str = ""
    codes: frozenset[str] = frozenset()  #: code, type, status, reasons; in lower case
    param: str | None = None  #: the parameter that is refused
    status: int | None = None  #: an HTTP status that stands in the body
    retry_delay: str | None = None  #: Google's RetryInfo


def classify(reply: Reply, usage: Usage | None = None) -> CallError:
    """Understand an answer that is an error, by its body or by its status."""
    said = _said(reply.body)
    status = reply.status
    if status < 300 and said.status is not None:
        status = said.status  # a proxy's 200 around a provider's error
    message = said.message or f"HTTP {reply.status}"
    if status < 300 and not said.message:
        message = "the answer is neither a completion nor an error"
    if 300 <= status < 400:
        message = f"HTTP {status}: a redirect, which is not followed; correct base_url"
    return CallError(
        _error_class(status, said),
        scrub(message)[:MAX_MESSAGE],
        status=reply.status,
        usage=usage,
        retry_after_s=waiting.retry_after_s(reply.headers, said.message, said.retry_delay),
        body=scrub(reply.body.decode("utf-8", "replace")),
    )


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


def _error_class(status: int, said: Said) -> ErrorClass:
    for row in TABLE:
        if row.statuses is not None and status >= 300 and status not in row.statuses:
            continue
        if row.codes & said.codes or (row.text is not None and row.text.search(said.message)):
            return row.error_class
    if status in (400, 422) and said.param and not said.param.startswith(("messages", "input", "contents")):
        return ErrorClass.CONFIG  # one parameter is refused here; the next provider may know it
    if status in BY_STATUS:
        return BY_STATUS[status]
    if status >= 500 and status != 501:
        return ErrorClass.TRANSIENT
    return ErrorClass.MALFORMED if status < 300 else ErrorClass.CONFIG


def _said(body: bytes) -> Said:
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
        flat = answer.get("message") or answer.get("detail")
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
    )


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
            if isinstance(violation, dict) and "PerDay" in str(violation.get("quotaId")):
                yield "per_day"
    for name in named:
        if isinstance(name, str | int) and not isinstance(name, bool):
            yield str(name).lower()
