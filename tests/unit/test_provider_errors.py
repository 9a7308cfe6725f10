"""What each provider's errors mean. Bodies have the forms of the vendors' documentation and SDKs."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from worker.providers import errors
from worker.providers.types import ErrorClass, Reply

PROMPT, CONTEXT, CONTENT = ErrorClass.PROMPT, ErrorClass.CONTEXT, ErrorClass.CONTENT
RATE_LIMITED, OVERLOADED, TRANSIENT = ErrorClass.RATE_LIMITED, ErrorClass.OVERLOADED, ErrorClass.TRANSIENT
QUOTA, AUTH, CONFIG, MALFORMED = ErrorClass.QUOTA, ErrorClass.AUTH, ErrorClass.CONFIG, ErrorClass.MALFORMED


def openai(
    message: str, code: Any = None, type: str = "invalid_request_error", param: Any = None
) -> dict[str, Any]:
    return {"error": {"message": message, "type": type, "param": param, "code": code}}


def anthropic(type: str, message: str, **details: Any) -> dict[str, Any]:
    error: dict[str, Any] = {"type": type, "message": message}
    if details:
        error["details"] = details
    return {"type": "error", "error": error, "request_id": "req_011CSHoEeqs5C35K2UUqR7Fy"}


def gemini(code: int, status: str, message: str, *details: dict[str, Any]) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "status": status, "details": list(details)}}


def google_quota(quota_id: str, delay: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return (
        {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota_id}]},
        {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": delay},
    )


def zai(code: str, message: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}, "request_id": "20261123"}


@pytest.mark.parametrize(
    ("status", "body", "error_class"),
    [
        # OpenAI: one text too long for this model.
        (
            400,
            openai("This model's maximum context length is 128000 tokens.", "context_length_exceeded"),
            CONTEXT,
        ),
        # OpenAI: a policy refused the prompt.
        (400, openai("Your request was rejected by our safety system.", "content_policy_violation"), CONTENT),
        # OpenAI: a message has a wrong form; it has it everywhere.
        (
            400,
            openai("Invalid type for 'messages[0].content'.", "invalid_type", param="messages[0].content"),
            PROMPT,
        ),
        # OpenAI: this model has no such parameter; another may.
        (400, openai("Unsupported value: 'temperature'", "unsupported_value", param="temperature"), CONFIG),
        (400, openai("Invalid value for 'seed'", "integer_above_max_value", param="seed"), CONFIG),
        # OpenAI: no such model.
        (404, openai("The model `gpt-9` does not exist", "model_not_found"), CONFIG),
        (403, openai("Project does not have access to model gpt-5", "model_not_found"), CONFIG),
        # OpenAI: key, IP, country.
        (401, openai("Incorrect API key provided: sk-ab***yz.", "invalid_api_key"), AUTH),
        (401, openai("Your IP is not authorized", "ip_not_authorized"), AUTH),
        (
            403,
            openai("Country not supported", "unsupported_country_region_territory", "request_forbidden"),
            AUTH,
        ),
        # OpenAI: requests or tokens of a minute.
        (429, openai("Rate limit reached for requests", "rate_limit_exceeded", "requests"), RATE_LIMITED),
        (429, openai("Rate limit reached for tokens", "rate_limit_exceeded", "tokens"), RATE_LIMITED),
        # OpenAI: ramped up too fast.
        (429, openai("Slow down", "slow_down"), OVERLOADED),
        # OpenAI: no money, in the older form and the newer ones.
        (429, openai("You exceeded your current quota", "insufficient_quota", "insufficient_quota"), QUOTA),
        (429, openai("No credit", "credit_balance_exhausted", "insufficient_quota"), QUOTA),
        (429, openai("Limit", "organization_spend_limit_exceeded", "insufficient_quota"), QUOTA),
        (429, openai("Limit", "project_spend_limit_exceeded", "insufficient_quota"), QUOTA),
        (429, openai("Limit", "organization_usage_limit_exceeded", "insufficient_quota"), QUOTA),
        # OpenAI: its own trouble.
        (500, openai("The server had an error", type="server_error"), TRANSIENT),
        (503, openai("Busy", "server_is_overloaded", "service_unavailable"), OVERLOADED),
        (503, openai("Slow down", "slow_down", "service_unavailable"), OVERLOADED),
        (502, b"<html><body>Bad Gateway</body></html>", TRANSIENT),
        (504, b"", TRANSIENT),
        # Anthropic: the request has a wrong form.
        (400, anthropic("invalid_request_error", "messages: at least one message is required"), PROMPT),
        # Anthropic: too long.
        (
            400,
            anthropic("invalid_request_error", "prompt is too long: 210000 tokens > 200000 maximum"),
            CONTEXT,
        ),
        # Anthropic: newer models have lost the parameter.
        (400, anthropic("invalid_request_error", "`temperature` is deprecated for this model."), CONFIG),
        (
            400,
            anthropic("invalid_request_error", "`temperature` and `top_p` cannot both be specified"),
            CONFIG,
        ),
        # Anthropic: the spend limit that the user set, and an empty account.
        (400, anthropic("invalid_request_error", "You have reached your specified API usage limits."), QUOTA),
        (400, anthropic("invalid_request_error", "Your credit balance is too low to access the API."), QUOTA),
        # Anthropic: the answer was filtered.
        (400, anthropic("invalid_request_error", "Output blocked by content filtering policy"), CONTENT),
        (401, anthropic("authentication_error", "invalid x-api-key"), AUTH),
        (402, anthropic("billing_error", "There is an issue with your billing"), QUOTA),
        (403, anthropic("permission_error", "Your API key has no permission"), AUTH),
        (404, anthropic("not_found_error", "model: claude-9"), CONFIG),
        (409, anthropic("conflict_error", "Conflict"), PROMPT),
        (413, anthropic("request_too_large", "Request exceeds the maximum size"), CONTEXT),
        (429, anthropic("rate_limit_error", "Number of request tokens has exceeded"), RATE_LIMITED),
        # Anthropic: three different 429s behind one type.
        (429, anthropic("rate_limit_error", "x", error_code="enforced_spend_limit_reached"), QUOTA),
        (429, anthropic("rate_limit_error", "x", error_code="contract_spend_limit_reached"), QUOTA),
        (429, anthropic("rate_limit_error", "x", error_code="ramp_limit_exceeded"), RATE_LIMITED),
        (500, anthropic("api_error", "Internal server error"), TRANSIENT),
        (504, anthropic("timeout_error", "Timed out"), TRANSIENT),
        (529, anthropic("overloaded_error", "Overloaded"), OVERLOADED),
        # Gemini: a wrong form; the region; and a wrong key, which is a 400 as well.
        (400, gemini(400, "INVALID_ARGUMENT", "Invalid value at 'contents[0]'"), PROMPT),
        (400, gemini(400, "INVALID_ARGUMENT", 'Unknown name "thinkingLevel": Cannot find field.'), CONFIG),
        (
            400,
            gemini(400, "INVALID_ARGUMENT", "The input token count (1200000) exceeds the maximum"),
            CONTEXT,
        ),
        (400, gemini(400, "FAILED_PRECONDITION", "User location is not supported for the API use."), AUTH),
        (400, gemini(400, "INVALID_ARGUMENT", "API key not valid.", {"reason": "API_KEY_INVALID"}), AUTH),
        # Gemini: the minute's quota is waited for, the day's is not.
        (
            429,
            gemini(429, "RESOURCE_EXHAUSTED", "Quota", *google_quota("RequestsPerMinutePerModel", "22s")),
            RATE_LIMITED,
        ),
        (
            429,
            gemini(429, "RESOURCE_EXHAUSTED", "Quota", *google_quota("RequestsPerDayPerModel", "22s")),
            QUOTA,
        ),
        (402, gemini(402, "RESOURCE_EXHAUSTED", "Your prepayment credits are depleted."), QUOTA),
        (429, gemini(429, "RESOURCE_EXHAUSTED", "Your project has exceeded its spending cap."), QUOTA),
        (403, gemini(403, "PERMISSION_DENIED", "Permission denied"), AUTH),
        (404, gemini(404, "NOT_FOUND", "models/gemini-9 is not found"), CONFIG),
        (500, gemini(500, "INTERNAL", "An internal error"), TRANSIENT),
        (503, gemini(503, "UNAVAILABLE", "The service is currently unavailable."), TRANSIENT),
        (503, gemini(503, "UNAVAILABLE", "The model is overloaded."), OVERLOADED),
        (504, gemini(504, "DEADLINE_EXCEEDED", "Deadline expired"), TRANSIENT),
        # Google may put its error into a list.
        (429, [gemini(429, "RESOURCE_EXHAUSTED", "Quota", *google_quota("PerDay", "1s"))], QUOTA),
        # Groq: one request above the tokens of a minute.
        (
            413,
            openai("Request too large for model on tokens per minute (TPM)", "rate_limit_exceeded", "tokens"),
            CONFIG,
        ),
        (422, openai("Semantic error", None), PROMPT),
        (
            429,
            openai("Rate limit reached on tokens per minute (TPM)", "rate_limit_exceeded", "tokens"),
            RATE_LIMITED,
        ),
        # Groq: the day's tokens.
        (
            429,
            openai("Rate limit reached on tokens per day (TPD): Limit 1", "rate_limit_exceeded", "tokens"),
            QUOTA,
        ),
        # Groq: no room in the flex tier; what the model wrote was no JSON; a server it depends on.
        (498, openai("Flex tier capacity exceeded", "capacity_exceeded"), OVERLOADED),
        (400, openai("Failed to generate JSON", "json_validate_failed"), MALFORMED),
        (400, openai("Failed to call a function", "tool_use_failed"), MALFORMED),
        (499, openai("Cancelled"), TRANSIENT),
        (424, openai("MCP server failed"), CONFIG),
        # Cerebras: no wrapper around the error.
        (
            404,
            {
                "message": "Model x does not exist",
                "type": "not_found_error",
                "param": "model",
                "code": "model_not_found",
            },
            CONFIG,
        ),
        (
            401,
            {
                "message": "Wrong API Key",
                "type": "invalid_request_error",
                "param": "api_key",
                "code": "wrong_api_key",
            },
            AUTH,
        ),
        (
            429,
            {
                "message": "Tokens per minute limit exceeded",
                "type": "too_many_tokens_error",
                "param": "quota",
                "code": "token_quota_exceeded",
            },
            RATE_LIMITED,
        ),
        (
            429,
            {
                "message": "We're experiencing high traffic right now!",
                "type": "too_many_requests_error",
                "param": "queue",
                "code": "queue_exceeded",
            },
            OVERLOADED,
        ),
        (
            400,
            {
                "message": "Please reduce the length of the messages",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            },
            CONTEXT,
        ),
        # Z.ai: codes are strings, the status is often 429.
        (429, zai("1302", "High concurrency usage of this API"), RATE_LIMITED),
        (429, zai("1303", "High frequency usage of this API"), RATE_LIMITED),
        (429, zai("1305", "The API has triggered a rate limit"), OVERLOADED),
        (
            429,
            zai("1308", "Usage limit reached for 5 hour. Your limit will reset at 2026-11-23 12:00"),
            QUOTA,
        ),
        (429, zai("1113", "Insufficient balance or no resource package. Please recharge."), QUOTA),
        (429, zai("1112", "Your account has been locked"), AUTH),
        (429, zai("1309", "Your plan has expired"), QUOTA),
        (400, zai("1211", "Unknown Model, please check the model code."), CONFIG),
        (400, zai("1214", "Incorrect parameter"), CONFIG),
        (400, zai("1261", "Prompt too long"), CONTEXT),
        (400, zai("1301", "System detected potentially unsafe or sensitive content"), CONTENT),
        (401, zai("1001", "Header has no Authentication parameter"), AUTH),
        (434, zai("1220", "No permission"), AUTH),
        (500, zai("500", "Internal Error"), TRANSIENT),
        # Local servers: vLLM's flat form, Ollama's bare text, FastAPI's detail.
        (
            400,
            {"object": "error", "message": "This model's maximum context length is 4096 tokens", "code": 400},
            CONTEXT,
        ),
        (404, {"error": "model 'llama9' not found, try pulling it first"}, CONFIG),
        (422, {"detail": "Unprocessable"}, PROMPT),
        # A proxy's good status around a provider's error.
        (200, {"error": {"code": 429, "message": "Rate limited upstream"}}, RATE_LIMITED),
        (200, zai("1302", "High concurrency usage of this API"), RATE_LIMITED),
        (200, {"hello": "world"}, MALFORMED),
        (204, b"", MALFORMED),
        # Nothing known but the status.
        (307, b"", CONFIG),
        (402, b"", QUOTA),
        (408, b"", TRANSIENT),
        (418, b"", CONFIG),
        (429, b"", RATE_LIMITED),
        (501, b"", CONFIG),
        (520, b"error code: 520", TRANSIENT),
    ],
)
def test_an_error_is_classed_by_what_can_be_done_about_it(
    status: int, body: Any, error_class: ErrorClass
) -> None:
    reply = Reply(status, {}, body if isinstance(body, bytes) else msgspec.json.encode(body))
    error = errors.classify(reply)
    assert (error.error_class, error.status) == (error_class, status)


@pytest.mark.parametrize(
    "key",
    [
        "sk-proj-Abc123_def456-ghi789",
        "sk-ant-api03-abcdefghijk",
        "gsk_abcdefghijklmnop",
        "csk-abcdefghijklmnop",
        "AIzaSyA1234567890abcdefghijklmnop",
        "0123456789abcdef0123456789abcdef.AbCdEfGhIjKlMnOp",
    ],
)
def test_a_key_that_a_provider_repeats_is_taken_out(key: str) -> None:
    body = openai(f"Incorrect API key provided: {key}. Bearer {key} was sent.", "invalid_api_key")
    error = errors.classify(Reply(401, {}, msgspec.json.encode(body)))
    assert key not in str(error)
    assert key not in (error.body or "")
    assert (
        error.message == "Incorrect API key provided: [key] Bearer [key] was sent." or "[key]" in error.message
    )


def test_a_long_message_is_cut_and_the_body_is_kept() -> None:
    error = errors.classify(Reply(500, {}, msgspec.json.encode(openai("x" * 2000))))
    assert len(error.message) == 500
    assert "x" * 2000 in (error.body or "")


def test_a_message_says_the_status_where_the_body_says_nothing() -> None:
    assert errors.classify(Reply(502, {}, b"<html>")).message == "HTTP 502"
    assert "base_url" in errors.classify(Reply(302, {"location": "/login"}, b"")).message


def test_a_body_is_kept_as_text_that_postgres_can_hold() -> None:
    assert errors.classify(Reply(500, {}, b"a\x00b\xff")).body == "a\ufffdb\ufffd"
    assert errors.classify(Reply(500, {}, b'{"error":{"message":"a\\u0000b"}}')).message == "a\ufffdb"


def test_the_wait_of_an_error_comes_from_its_body_too() -> None:
    body = gemini(429, "RESOURCE_EXHAUSTED", "Quota", *google_quota("RequestsPerMinute", "22s"))
    assert errors.classify(Reply(429, {}, msgspec.json.encode(body))).retry_after_s == 22.0
