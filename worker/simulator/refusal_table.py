"""What each provider says when it refuses, after the providers' documentation of their errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from worker.simulator import flavours


class Refusal(NamedTuple):
    """An error as a provider words it.

    `type` is OpenAI's and Anthropic's error type and Gemini's `status`; `code` is the finer one where
    the provider has it, and what a fault's `code` is matched with. `status` 200 marks one that is an answer.
    """

    status: int
    type: str
    code: str
    message: str
    param: str | None = None


_R = Refusal
_BAD = "invalid_request_error"
_FILTERED = _R(200, "", "answer", "")

#: What each provider says to each kind of fault; the first of a kind is what it says by default.
TABLE: Mapping[flavours.Flavour, Mapping[str, tuple[Refusal, ...]]] = {
    "openai": {
        "server_error": (
            _R(500, "server_error", "", "The server had an error while processing your request."),
        ),
        "overloaded": (
            _R(
                503,
                "server_error",
                "server_is_overloaded",
                "That model is currently overloaded with other requests.",
            ),
            _R(503, "server_error", "slow_down", "Please reduce your request rate and ramp up slowly."),
            _R(429, "requests", "slow_down", "Please reduce your request rate and ramp up slowly."),
        ),
        "auth": (
            _R(
                401,
                _BAD,
                "invalid_api_key",
                "Incorrect API key provided. You can find your API key in your account.",
            ),
            _R(403, "request_forbidden", "unsupported_country_region_territory", "Country not supported"),
        ),
        "out_of_credit": tuple(
            _R(
                429,
                "insufficient_quota",
                code,
                "You exceeded your current quota, please check your plan and billing.",
            )
            for code in (
                "insufficient_quota",
                "credit_balance_exhausted",
                "organization_spend_limit_exceeded",
                "project_spend_limit_exceeded",
                "organization_usage_limit_exceeded",
            )
        ),
        "context_length": (
            _R(
                400,
                _BAD,
                "context_length_exceeded",
                "Your input exceeds the context window of this model.",
                "messages",
            ),
        ),
        "content_filter": (
            _R(400, _BAD, "content_policy_violation", "Your request was rejected by our safety system."),
            _R(400, _BAD, "content_filter", "The response was filtered."),
            _FILTERED,
        ),
    },
    "groq": {
        "server_error": (_R(500, "internal_server_error", "", "Internal Server Error"),),
        "overloaded": (
            _R(
                498,
                "capacity_exceeded",
                "capacity_exceeded",
                "Flex tier capacity exceeded, retry with jitter.",
            ),
            _R(503, "internal_server_error", "over_capacity", "The model is currently over capacity."),
        ),
        "auth": (
            _R(401, _BAD, "invalid_api_key", "Invalid API Key"),
            _R(
                403,
                "permissions_error",
                "model_permission_blocked_org",
                "The model is blocked for your organization.",
            ),
        ),
        "out_of_credit": (
            _R(
                429,
                "insufficient_quota",
                "blocked_api_access",
                "API access is blocked: the spend limit is reached.",
            ),
        ),
        "context_length": (
            _R(
                413,
                "tokens",
                "rate_limit_exceeded",
                "Request too large for the model on tokens per minute (TPM).",
            ),
            _R(400, _BAD, "context_length_exceeded", "Please reduce the length of the messages.", "messages"),
        ),
        "content_filter": (
            _R(400, _BAD, "content_filter", "The request was refused by a content policy."),
            _FILTERED,
        ),
    },
    "cerebras": {
        "server_error": (_R(500, "server_error", "", "Encountered a server error, please try again."),),
        "overloaded": (
            _R(
                503,
                "too_many_requests_error",
                "queue_exceeded",
                "We're experiencing high traffic right now.",
                "queue",
            ),
        ),
        "auth": (_R(401, _BAD, "wrong_api_key", "Wrong API Key", "api_key"),),
        "out_of_credit": (_R(402, "payment_required_error", "payment_required", "Payment required."),),
        "context_length": (
            _R(400, _BAD, "context_length_exceeded", "Please reduce the length of the messages.", "messages"),
        ),
        "content_filter": (
            _R(400, _BAD, "content_filter", "The request was refused by a content policy."),
            _FILTERED,
        ),
    },
    "zai": {
        "server_error": (_R(500, "", "500", "Internal server error"),),
        "overloaded": (
            _R(429, "", "1305", "The service may be temporarily overloaded, please try again later"),
            _R(429, "", "1312", "This model is under heavy load, please try again later"),
        ),
        "auth": (
            _R(401, "", "1000", "Authentication Failed"),
            _R(401, "", "1002", "Authorization Token invalid"),
            _R(401, "", "1004", "Authentication Token verification failed"),
        ),
        "out_of_credit": (
            _R(429, "", "1113", "Insufficient balance or no resource package. Please recharge."),
            _R(429, "", "1112", "Your account has been locked, please contact customer service"),
            _R(429, "", "1121", "Your account has been locked"),
            _R(429, "", "1304", "You have reached the daily limit for API calls"),
            _R(429, "", "1308", "Usage limit reached. Your limit will reset at 2030-01-01 00:00:00"),
            _R(429, "", "1309", "Your coding plan package has expired"),
            _R(429, "", "1310", "Weekly limit exhausted. Your limit will reset at 2030-01-01 00:00:00"),
        ),
        "context_length": (_R(400, "", "1261", "Prompt exceeds max length"),),
        "content_filter": (
            _R(400, "", "1301", "The input may contain unsafe or sensitive content."),
            _FILTERED,
        ),
    },
    "anthropic": {
        "server_error": (_R(500, "api_error", "", "Internal server error"),),
        "overloaded": (_R(529, "overloaded_error", "", "Overloaded"),),
        "auth": (
            _R(401, "authentication_error", "", "invalid x-api-key"),
            _R(
                403,
                "permission_error",
                "permission_error",
                "Your account does not have permission for this model.",
            ),
        ),
        "out_of_credit": (
            _R(402, "billing_error", "", "Your credit balance is too low to access the Anthropic API."),
            _R(
                400,
                _BAD,
                "usage_limits",
                "You have reached your specified API usage limits. Access returns 2030-01-01.",
            ),
            _R(429, "rate_limit_error", "enforced_spend_limit_reached", "The monthly spend limit is reached."),
            _R(
                429,
                "rate_limit_error",
                "contract_spend_limit_reached",
                "The contract's spend limit is reached.",
            ),
        ),
        "context_length": (
            _R(400, _BAD, "", "prompt is too long: 210000 tokens > 200000 maximum"),
            _R(413, "request_too_large", "request_too_large", "Request exceeds the maximum size"),
        ),
        "content_filter": (_FILTERED, _R(400, _BAD, "blocked", "Output blocked by content filtering policy")),
    },
    "gemini": {
        "server_error": (_R(500, "INTERNAL", "", "An internal error has occurred."),),
        "overloaded": (_R(503, "UNAVAILABLE", "", "The model is overloaded. Please try again later."),),
        "auth": (
            _R(
                403,
                "PERMISSION_DENIED",
                "",
                "Permission denied: this API key may not use the Generative Language API.",
            ),
            _R(400, "INVALID_ARGUMENT", "API_KEY_INVALID", "API key not valid. Please pass a valid API key."),
            _R(401, "UNAUTHENTICATED", "UNAUTHENTICATED", "Request had invalid authentication credentials."),
        ),
        "out_of_credit": (
            _R(
                429,
                "RESOURCE_EXHAUSTED",
                "",
                "Your prepayment credits are depleted. Go to AI Studio to manage billing.",
            ),
            _R(402, "RESOURCE_EXHAUSTED", "payment_required", "Your prepayment credits are depleted."),
            _R(429, "RESOURCE_EXHAUSTED", "spend_cap", "Your project has exceeded its monthly spending cap."),
            _R(400, "FAILED_PRECONDITION", "billing", "Enable billing on your project to use this model."),
        ),
        "context_length": (
            _R(
                400,
                "INVALID_ARGUMENT",
                "",
                "The input token count exceeds the maximum number of tokens allowed.",
            ),
        ),
        "content_filter": tuple(
            _R(200, "", code, "")
            for code in ("SAFETY", "promptFeedback", "RECITATION", "BLOCKLIST", "PROHIBITED_CONTENT", "SPII")
        ),
    },
}
