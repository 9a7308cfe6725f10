"""A call from the moment it was let in: it waits, is answered or goes wrong, and is billed."""

from __future__ import annotations

import time
from typing import Any, Literal, NamedTuple

import msgspec

from worker.providers import types
from worker.simulator import (
    accounts,
    answers,
    anthropic_messages,
    billing,
    conversation,
    flavours,
    gemini_generate_content,
    openai_chat,
    rate_limits,
    refusal_table,
    refusals,
)
from worker.simulator import settings as simulator_settings

Headers = dict[str, str]

_encode = msgspec.json.encode
_GATEWAY_PAGE = b"<html><head><title>502 Bad Gateway</title></head><body>502 Bad Gateway</body></html>"


class Outgoing(NamedTuple):
    """What goes back to the client, and what becomes of the connection."""

    status: int  #: 0 for nothing at all
    headers: Headers
    body: bytes
    #: `cut`: the connection is broken in the middle of the body; `none`: before anything is sent.
    ending: Literal["whole", "cut", "none"] = "whole"


class Turn:
    """A call that waits for its answer.

    After `delay_s` either `answer` or, when the client has left by then, `abandon` ends it.
    """

    __slots__ = ("_account", "_answer", "_asked", "_digest", "_fault", "_ledger", "_target", "delay_s")

    def __init__(
        self,
        ledger: billing.Ledger,
        target: flavours.Target,
        account: accounts.Account,
        asked: conversation.Conversation,
        digest: bytes,
        answer: answers.Answer,
        fault: simulator_settings.Fault | None,
        delay_s: float,
    ) -> None:
        self._ledger = ledger
        self._target = target
        self._account = account
        self._asked = asked
        self._digest = digest
        self._answer = answer
        self._fault = fault
        self.delay_s = delay_s
        account.in_flight += 1

    def answer(self) -> Outgoing:
        """Bill the call and give what the client gets."""
        self._account.in_flight -= 1
        fault = self._fault
        if fault is None:
            return self._completion(None)
        if fault.kind in ("hang", "reset"):
            return self._broken(fault)
        if fault.kind == "malformed":
            whole = self._completion(None)
            return whole._replace(body=whole.body[: len(whole.body) * 3 // 5])
        flavour = self._target.flavour
        if fault.kind == "rate_limited":
            refusal, extra, details = rate_limits.refusal(
                flavour, fault.scope, 1, fault.retry_after_s, fault.form, fault.code
            )
            return self._refusal(refusal, extra, details)
        refusal = refusals.of_fault(flavour, fault)
        if refusal.status == 200:
            return self._completion(refusal.code)
        outgoing = self._refusal(refusal, {}, [])
        if fault.kind == "server_error" and fault.status == 502:
            # A 502 comes from a gateway that knows nothing of the API.
            return outgoing._replace(headers={"content-type": "text/html"}, body=_GATEWAY_PAGE)
        return outgoing

    def abandon(self) -> None:
        """The client left before the answer: it is not billed, except for a fault that says so."""
        self._account.in_flight -= 1
        fault = self._fault
        self._record(0 if fault and fault.kind == "hang" else 499, bool(fault and fault.billed))

    def _completion(self, refused: str | None) -> Outgoing:
        target, asked, answer = self._target, self._asked, self._answer
        if refused == "promptFeedback":
            usage = types.Usage(input_tokens=answer.usage.all_input_tokens)
            answer = answer._replace(usage=usage)
        response_id = billing.response_id(target.dialect, self._ledger.count + 1)
        if target.dialect == "openai_chat":
            body = openai_chat.reply(asked, answer, target.flavour, response_id, refused)
        elif target.dialect == "anthropic_messages":
            body = anthropic_messages.reply(asked, answer, response_id, refused)
        else:
            body = gemini_generate_content.reply(asked, answer, response_id, refused)
        headers = self._headers()
        fault = self._fault
        billed = fault is None or fault.kind == "content_filter" or fault.is_billed
        broken = fault is not None and fault.kind == "reset"
        self._record(0 if broken else 200, billed, answer.usage)
        return Outgoing(200, headers, _encode(body))

    def _refusal(
        self, refusal: refusal_table.Refusal, extra: Headers, details: list[dict[str, Any]]
    ) -> Outgoing:
        headers = self._headers() | extra
        named = request_id(self._ledger)
        self._record(refusal.status, billed=False)
        return Outgoing(
            refusal.status,
            headers,
            _encode(refusals.body(self._target.flavour, refusal, named, details)),
        )

    def _broken(self, fault: simulator_settings.Fault) -> Outgoing:
        if fault.kind == "reset" and fault.when == "mid_answer":
            whole = self._completion(None)
            return whole._replace(ending="cut")
        self._record(0, fault.is_billed)
        return Outgoing(0, {}, b"", ending="none")

    def _headers(self) -> Headers:
        found = plain_headers(self._target.flavour, self._ledger)
        limiter = self._account.limiter
        if limiter.counts:
            found |= rate_limits.headers(self._target.flavour, limiter, time.monotonic())
        return found

    def _record(self, status: int, billed: bool, usage: types.Usage | None = None) -> None:
        fault = self._fault
        self._ledger.record(
            billing.Entry(
                self._target.provider,
                self._asked.model,
                self._target.dialect,
                status,
                billed,
                fault.kind if fault is not None else None,
                usage or self._answer.usage,
                self._digest,
            ),
            time.time(),
        )


def request_id(ledger: billing.Ledger) -> str:
    return f"req_sim{ledger.count + 1:021d}"


def plain_headers(flavour: flavours.Flavour, ledger: billing.Ledger) -> Headers:
    name = "request-id" if flavour == "anthropic" else "x-request-id"
    return {"content-type": "application/json", name: request_id(ledger)}
