"""What happens to a call: read, counted against the limits, perhaps made to fail, answered, billed."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec

from worker.simulator import (
    accounts,
    answers,
    anthropic_messages,
    billing,
    conversation,
    faults,
    flavours,
    gemini_generate_content,
    limits,
    openai_chat,
    rate_limits,
    refusal_table,
    refusals,
    turns,
)
from worker.simulator import settings as simulator_settings


class Service:
    """All simulated providers of this process."""

    def __init__(self, settings: simulator_settings.Settings) -> None:
        self.ledger = billing.Ledger()
        self.settings = settings
        self._accounts: dict[str, accounts.Account] = {}

    def change(self, settings: simulator_settings.Settings) -> None:
        """Take new settings for the calls from now on. The bill goes on."""
        self.settings = settings
        for name, account in self._accounts.items():
            account.change(settings.of(name))

    def call(
        self, target: flavours.Target, headers: Mapping[str, str], body: bytes
    ) -> turns.Turn | turns.Outgoing:
        """Take a call: a turn to wait for, or a refusal to send at once."""
        if not flavours.has_key(target.flavour, headers):
            return self._refuse(target, refusals.no_key(target.flavour))
        try:
            asked = _read(target, headers, body)
        except conversation.Refused as e:
            return self._refuse(target, refusals.bad_request(target.flavour, e))
        account = self._account(target.provider)
        digest = conversation.digest(asked.texts)
        answer = answers.answer(asked, digest, target.flavour)
        exceeded = self._admit(account, asked, answer)
        if exceeded is not None:
            return self._limit(target, account, asked, digest, exceeded)
        account.calls += 1
        draw, delay_s, fault = 0.0, account.settings.latency_ms / 1000, None
        if account.draws:
            visit_no = account.visit(digest)
            draw = faults.chance(target.provider, digest, visit_no)
            if account.settings.jitter != "none":
                delay_s = faults.latency_s(
                    account.settings, faults.chance(target.provider, digest, visit_no, b"latency")
                )
        if account.faults:
            fault = faults.choose(account.faults, draw, account.calls)
            if fault is not None:
                delay_s = _fault_delay_s(fault, delay_s)
        return turns.Turn(self.ledger, target, account, asked, digest, answer, fault, delay_s)

    def too_large(self, target: flavours.Target) -> turns.Outgoing:
        """What a body beyond all bounds gets."""
        refused = conversation.Refused("Request exceeds the maximum size", status=413)
        return self._refuse(target, refusals.bad_request(target.flavour, refused))

    def _account(self, provider: str) -> accounts.Account:
        found = self._accounts.get(provider)
        if found is None:
            found = self._accounts[provider] = accounts.Account(self.settings.of(provider))
        return found

    def _admit(
        self, account: accounts.Account, asked: conversation.Conversation, answer: answers.Answer
    ) -> limits.Exceeded | None:
        usage = answer.usage
        output = usage.output_tokens
        if account.settings.limits.reserve_max_tokens and asked.max_tokens is not None:
            output = asked.max_tokens
        return account.limiter.admit(usage.all_input_tokens + output, account.in_flight, time.monotonic())

    def _limit(
        self,
        target: flavours.Target,
        account: accounts.Account,
        asked: conversation.Conversation,
        digest: bytes,
        exceeded: limits.Exceeded,
    ) -> turns.Outgoing:
        refusal, extra, details = rate_limits.refusal(
            target.flavour, exceeded.scope, exceeded.limit, exceeded.wait_s, "native"
        )
        told = rate_limits.headers(target.flavour, account.limiter, time.monotonic())
        return self._refuse(target, refusal, told | extra, details, asked.model, digest, "limit")

    def _refuse(
        self,
        target: flavours.Target,
        refusal: refusal_table.Refusal,
        extra: Mapping[str, str] | None = None,
        details: list[dict[str, Any]] | None = None,
        model: str | None = None,
        digest: bytes | None = None,
        fault: str | None = None,
    ) -> turns.Outgoing:
        headers = turns.plain_headers(target.flavour, self.ledger) | dict(extra or {})
        body = msgspec.json.encode(
            refusals.body(target.flavour, refusal, turns.request_id(self.ledger), details)
        )
        entry = billing.Entry(
            target.provider, model or target.model, target.dialect, refusal.status, False, fault, None, digest
        )
        self.ledger.record(entry, time.time())
        return turns.Outgoing(refusal.status, headers, body)


def _read(target: flavours.Target, headers: Mapping[str, str], body: bytes) -> conversation.Conversation:
    if target.dialect == "openai_chat":
        return openai_chat.read(body, target.flavour)
    if target.dialect == "anthropic_messages":
        return anthropic_messages.read(body, headers.get("anthropic-version"))
    return gemini_generate_content.read(body, target.model)


def _fault_delay_s(fault: simulator_settings.Fault, latency_s: float) -> float:
    """Refusals come at once; what goes wrong with an answer goes wrong when it is made."""
    if fault.kind == "hang":
        return fault.hang_s
    at_the_answer = fault.kind in ("malformed", "reset", "content_filter")
    return latency_s if at_the_answer else 0.0


def not_found(path: str) -> turns.Outgoing:
    """What a path that no dialect has gets. It is on nobody's bill."""
    refusal = refusals.not_found(path)
    return turns.Outgoing(
        404, {"content-type": "application/json"}, msgspec.json.encode(refusals.body("generic", refusal, ""))
    )
