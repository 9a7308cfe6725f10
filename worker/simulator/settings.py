"""What a simulated provider does: how slow it is, what it allows, and what goes wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal, get_args

import pydantic

from worker import errors

FaultKind = Literal[
    "rate_limited",  # 429, telling when to come again in one of RetryForm's ways
    "server_error",  # a plain failure of the server, `status` says which
    "overloaded",  # the provider's own word for too much load
    "hang",  # no answer until the client goes away
    "reset",  # the connection is broken
    "malformed",  # 200 with JSON that breaks off
    "auth",  # the key is refused
    "out_of_credit",  # the account has no money left
    "context_length",  # the prompt is too long for the model
    "content_filter",  # a content policy says no
]
#: How a 429 says when to come again. `native` is the provider's own way, as reference documents have it.
RetryForm = Literal[
    "native", "seconds", "float_seconds", "http_date", "retry_after_ms", "retry_info", "message", "none"
]
#: What a 429 says ran out.
Scope = Literal["requests", "tokens", "day", "concurrency"]

#: The entry of `Settings.providers` that holds for every provider, where its own entry does not differ.
EVERY = "*"

Share = Annotated[float, pydantic.Field(ge=0, le=1)]
Positive = Annotated[int, pydantic.Field(gt=0)]


class Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")


class Fault(Frozen):
    """One thing that goes wrong, for a share of the calls.

    Which calls is decided by the prompt and by how often it came, so that a run is the same each time, in
    whatever order its calls arrive, and a retry of a prompt can succeed.
    """

    kind: FaultKind
    share: Share = 1.0
    after_calls: Annotated[int, pydantic.Field(ge=0)] = 0  #: calls since these settings that are spared
    status: Annotated[int, pydantic.Field(ge=500, le=599)] = 500  #: of `server_error`
    form: RetryForm = "native"  #: of `rate_limited`
    retry_after_s: Annotated[float, pydantic.Field(ge=0)] = 1.0  #: of `rate_limited`
    scope: Scope = "requests"  #: of `rate_limited`
    code: str | None = None  #: which of the provider's codes for this kind; the first in `refusals` without
    when: Literal["before_answer", "mid_answer"] = "before_answer"  #: of `reset`
    hang_s: Annotated[float, pydantic.Field(gt=0)] = 600.0  #: of `hang`: closed after that long at the latest
    billed: bool | None = None  #: of `malformed` (without: yes), `hang` and `reset` (without: no)

    @property
    def is_billed(self) -> bool:
        return self.kind == "malformed" if self.billed is None else self.billed


class Limits(Frozen):
    """What the provider allows, counted strictly in sliding windows. Absent means unlimited."""

    rpm: Positive | None = None  #: requests a minute
    rpd: Positive | None = None  #: requests a day
    tpm: Positive | None = None  #: tokens a minute, input and output together
    concurrency: Positive | None = None  #: calls in flight
    reserve_max_tokens: bool = False  #: count the output that was allowed, as OpenAI does, not what was used
    minute_s: Annotated[float, pydantic.Field(gt=0)] = 60.0  #: length of a minute, for tests in a hurry


class ProviderSettings(Frozen):
    """One simulated provider."""

    latency_ms: Annotated[float, pydantic.Field(ge=0)] = 0.0  #: mean time to an answer
    jitter: Literal["none", "exponential"] = "none"  #: how the latency is spread about its mean
    limits: Limits = Limits()
    faults: tuple[Fault, ...] = ()

    @pydantic.model_validator(mode="after")
    def _shares_fit(self) -> ProviderSettings:
        total = sum(fault.share for fault in self.faults if not fault.after_calls)
        if total > 1 + 1e-9:
            raise ValueError(f"the shares of the faults add up to {total:g}; they must stay within 1")
        return self


class Settings(Frozen):
    """All simulated providers, by name."""

    providers: Mapping[str, ProviderSettings] = {}

    def of(self, provider: str) -> ProviderSettings:
        """What holds for a provider: its own entry, and for what that leaves out the one of `*`."""
        common = self.providers.get(EVERY, ProviderSettings())
        own = self.providers.get(provider)
        if own is None:
            return common
        return common.model_copy(update={name: getattr(own, name) for name in own.model_fields_set})

    def with_provider(self, provider: str, settings: ProviderSettings) -> Settings:
        return Settings(providers={**self.providers, provider: settings})

    def with_faults(self, texts: Iterable[str]) -> Settings:
        """The same settings with exactly these faults, each written as for `parse_fault`.

        Raises:
            SettingsError: a text is not a fault, or the shares of a provider add up to more than 1.
        """
        faults: dict[str, list[Fault]] = {}
        for text in texts:
            provider, fault = parse_fault(text)
            faults.setdefault(provider, []).append(fault)
        providers: dict[str, ProviderSettings] = {}
        for name in {*self.providers, *faults}:
            kept = self.providers.get(name, ProviderSettings()).model_dump(exclude_unset=True)
            kept.pop("faults", None)
            if name in faults:
                kept["faults"] = faults[name]
            try:
                providers[name] = ProviderSettings.model_validate(kept)
            except pydantic.ValidationError as e:
                raise errors.SettingsError(f"The faults of {name} are wrong: {explain(e)}") from None
        return Settings(providers=providers)


def parse_fault(text: str) -> tuple[str, Fault]:
    """Read `[PROVIDER:]KIND[=SHARE][,OPTION=VALUE…]`, as in `groq:rate_limited=0.1,form=http_date`.

    Options are the other fields of `Fault`. Without a provider it is for all of them.

    Raises:
        SettingsError: it cannot be read; the message says how to write it.
    """
    provider, colon, rest = text.partition(":")
    if not colon:
        provider, rest = EVERY, text
    first, *options = rest.split(",")
    kind, equals, share = first.partition("=")
    fields = {"kind": kind.strip()}
    if equals:
        fields["share"] = share
    for option in options:
        name, _, value = option.partition("=")
        fields[name.strip()] = value.strip()
    try:
        return provider.strip() or EVERY, Fault.model_validate(fields)
    except pydantic.ValidationError as e:
        raise errors.SettingsError(
            f"The fault {text!r} is wrong: {explain(e)}. Write PROVIDER:KIND=SHARE, with KIND one of "
            f"{', '.join(get_args(FaultKind))}, and options after commas (status=503)."
        ) from None


def parse(json: str | bytes) -> Settings:
    """Read settings from JSON.

    Raises:
        SettingsError: they are wrong; the message names the field.
    """
    try:
        return Settings.model_validate_json(json)
    except pydantic.ValidationError as e:
        raise errors.SettingsError(f"The simulator's settings are wrong: {explain(e)}") from None


def explain(error: pydantic.ValidationError) -> str:
    """The first thing that is wrong, with its place."""
    first = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else first["msg"]
