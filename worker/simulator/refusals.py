"""Errors in each provider's own words and shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.simulator import conversation, flavours, refusal_table
from worker.simulator import settings as simulator_settings

Json = dict[str, Any]

_BAD_REQUEST = "invalid_request_error"

#: Status to type, where one refusal of the provider stands for several statuses.
_SERVER_TYPES: Mapping[str, Mapping[int, str]] = {
    "anthropic": {504: "timeout_error", 529: "overloaded_error"},
    "gemini": {503: "UNAVAILABLE", 504: "DEADLINE_EXCEEDED"},
}


def of_fault(flavour: flavours.Flavour, fault: simulator_settings.Fault) -> refusal_table.Refusal:
    """What the provider says to a fault: the entry with the fault's code, or its first.

    A code that the table does not hold is put in the place of the first one's.
    """
    entries = refusal_table.TABLE["openai" if flavour == "generic" else flavour][fault.kind]
    if fault.kind == "server_error":
        kind = _SERVER_TYPES.get(flavour, {}).get(fault.status, entries[0].type)
        return entries[0]._replace(status=fault.status, type=kind)
    if fault.code is None:
        return entries[0]
    return next((e for e in entries if e.code == fault.code), entries[0]._replace(code=fault.code))


def bad_request(flavour: flavours.Flavour, refused: conversation.Refused) -> refusal_table.Refusal:
    """What the provider says to a request that it cannot understand."""
    too_large = refused.status == 413
    if flavour == "anthropic":
        return refusal_table.Refusal(
            refused.status, "request_too_large" if too_large else _BAD_REQUEST, "", refused.message
        )
    if flavour == "gemini":
        return refusal_table.Refusal(400, "INVALID_ARGUMENT", "", refused.message)
    if flavour == "zai":
        return refusal_table.Refusal(400, "", "1210", refused.message)
    return refusal_table.Refusal(refused.status, _BAD_REQUEST, "", refused.message, refused.param)


def no_key(flavour: flavours.Flavour) -> refusal_table.Refusal:
    """What the provider says to a request without a key."""
    if flavour == "anthropic":
        return refusal_table.Refusal(401, "authentication_error", "", "x-api-key header is required")
    if flavour == "gemini":
        return refusal_table.Refusal(
            403, "PERMISSION_DENIED", "", "Method doesn't allow unregistered callers. Use an API Key."
        )
    if flavour == "zai":
        return refusal_table.Refusal(401, "", "1001", "Header is missing the Authorization parameter.")
    if flavour == "openai":
        return refusal_table.Refusal(
            401,
            _BAD_REQUEST,
            "",
            "You didn't provide an API key. Provide it in an Authorization header as Bearer.",
        )
    return refusal_table.TABLE[flavour]["auth"][0]


def not_found(path: str) -> refusal_table.Refusal:
    return refusal_table.Refusal(
        404, _BAD_REQUEST, "unknown_url", f"Unknown request URL: {path}. Please check the URL for typos."
    )


def body(
    flavour: flavours.Flavour,
    refusal: refusal_table.Refusal,
    request_id: str,
    details: list[Json] | None = None,
) -> Json:
    """The JSON of an error, in the provider's shape. `details` is what Gemini lists under that name."""
    error: Json = {"message": refusal.message}
    if details:
        error["details"] = details
    if flavour == "anthropic":
        error["type"] = refusal.type
        if refusal.code and refusal.type == "rate_limit_error":
            error["details"] = {"error_code": refusal.code}
        return {"type": "error", "error": error, "request_id": request_id}
    if flavour == "gemini":
        error |= {"code": refusal.status, "status": refusal.type}
        if refusal.code == "API_KEY_INVALID":
            error["details"] = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": refusal.code}]
        return {"error": error}
    if flavour == "zai":
        return {"error": error | {"code": refusal.code}, "request_id": request_id}
    error |= {"type": refusal.type, "code": refusal.code or None}
    if flavour != "groq":
        error["param"] = refusal.param
    # Cerebras puts no wrapper around it.
    return error if flavour == "cerebras" else {"error": error}
