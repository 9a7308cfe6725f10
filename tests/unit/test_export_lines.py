"""One output line for each way that a prompt can end."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from worker.ledger import export

COMPLETION = {"object": "chat.completion", "choices": []}
CREATED = 1_763_640_000


def translate(dialect: str, body: str, *, model: str, created: int) -> object:
    assert (dialect, body, model, created) == ("openai_chat", "{}", "llama", CREATED)
    return COMPLETION


def line(
    state: str, http_status: int | None, error_class: str | None = None, message: str | None = None
) -> Any:
    answered = state == "succeeded"
    row = (
        7,
        "question-7",
        state,
        "openai_chat" if answered else None,
        "{}" if answered else None,
        http_status,
        error_class,
        message,
        "llama" if state != "cancelled" else None,
        CREATED,
    )
    return msgspec.json.decode(msgspec.json.encode(export.line(3, row, translate)))


def test_an_answer_is_a_response_with_the_chat_completion() -> None:
    assert line("succeeded", 200) == {
        "id": "batch_req_3_7",
        "custom_id": "question-7",
        "response": {"status_code": 200, "request_id": "batch_req_3_7", "body": COMPLETION},
        "error": None,
    }


def test_an_error_status_is_a_response_with_the_error_in_its_body() -> None:
    assert line("failed", 400, "prompt", "messages: too long") == {
        "id": "batch_req_3_7",
        "custom_id": "question-7",
        "response": {
            "status_code": 400,
            "request_id": "batch_req_3_7",
            "body": {
                "error": {
                    "message": "messages: too long",
                    "type": "prompt",
                    "param": None,
                    "code": "prompt",
                }
            },
        },
        "error": None,
    }


@pytest.mark.parametrize(
    ("state", "http_status", "error_class", "code"),
    [
        ("failed", None, "timeout", "request_timeout"),  # OpenAI's own word
        ("failed", None, "transient", "transient"),  # broken connection
        ("failed", 200, "malformed", "malformed"),  # an answer of status 200 that nobody can read
        ("cancelled", None, "batch_cancelled", "batch_cancelled"),  # OpenAI's own word
    ],
)
def test_a_prompt_without_an_http_error_has_an_error_and_no_response(
    state: str, http_status: int | None, error_class: str, code: str
) -> None:
    assert line(state, http_status, error_class, "what happened") == {
        "id": "batch_req_3_7",
        "custom_id": "question-7",
        "response": None,
        "error": {"code": code, "message": "what happened"},
    }


def test_a_failure_without_a_message_has_an_empty_one() -> None:
    assert line("failed", None, "lost")["error"] == {"code": "lost", "message": ""}
