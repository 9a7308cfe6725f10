"""The registry: providers, their models, the categories and their chains. Frozen once read."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Literal, NamedTuple

import pydantic

from worker.routing.failures import ErrorClass

Dialect = Literal["openai_chat", "anthropic_messages", "gemini_generate_content"]
Capability = Literal["tools", "images", "json_object", "json_schema", "seed", "stop", "reasoning_effort"]
#: Parameters that most models have and some have lost.
Parameter = Literal[
    "temperature",
    "top_p",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "logprobs",
    "parallel_tool_calls",
    "user",
]

#: Names become parts of queue names (`<category>.<provider>`), so they hold no dot.
Name = Annotated[str, pydantic.StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,39}$")]
Positive = Annotated[int, pydantic.Field(gt=0)]
#: The name of a header with `*` where it says `limit`, `remaining` or `reset`.
HeaderPattern = Annotated[
    str, pydantic.StringConstraints(pattern=r"^[A-Za-z0-9-]*\*[A-Za-z0-9-]*$", to_lower=True)
]


class Frozen(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True)


class Route(NamedTuple):
    """A place that can answer: one model of one provider. Written `provider/model`."""

    provider: str
    model: str

    def __str__(self) -> str:
        return f"{self.provider}/{self.model}"

    @classmethod
    def parse(cls, text: str) -> Route:
        """Split at the first slash: model names hold slashes of their own (`groq/openai/gpt-oss-120b`).

        Raises:
            ValueError: there is no slash, or nothing on one side of it.
        """
        provider, slash, model = text.partition("/")
        if not (slash and provider and model):
            raise ValueError(f"{text!r} is not of the form provider/model")
        return cls(provider, model)


class Limits(Frozen):
    """What the provider allows one account. Absent means not known."""

    rpm: Positive | None = None  #: requests a minute
    tpm: Positive | None = None  #: tokens a minute, input and output together
    input_tpm: Positive | None = None
    output_tpm: Positive | None = None
    rpd: Positive | None = None  #: requests a day
    concurrency: Positive | None = None  #: calls in flight of one worker process


class RateLimitHeaders(Frozen):
    """How a provider's answers call its limits, as in `x-ratelimit-*-tokens`. Absent means not told."""

    requests_minute: HeaderPattern | None = None
    requests_day: HeaderPattern | None = None
    tokens_minute: HeaderPattern | None = None
    input_tokens_minute: HeaderPattern | None = None
    output_tokens_minute: HeaderPattern | None = None


class Rates(Frozen):
    """US dollars for a million tokens, where genai-prices does not know the model."""

    input: Annotated[Decimal, pydantic.Field(ge=0, strict=False)]
    output: Annotated[Decimal, pydantic.Field(ge=0, strict=False)]
    cache_read: Annotated[Decimal, pydantic.Field(ge=0, strict=False)] | None = None
    cache_write: Annotated[Decimal, pydantic.Field(ge=0, strict=False)] | None = None


class Model(Frozen):
    """One model of a provider."""

    context_window: Positive  #: tokens of input and output together
    #: What is asked for when the prompt sets no limit and the API demands one.
    max_output_tokens: Positive | None = None
    capabilities: frozenset[Capability] = frozenset()
    unsupported: frozenset[Parameter] = frozenset()  #: refused where they are set to more than their default
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_completion_tokens"
    price: str | None = None  #: `provider/model` in genai-prices, where it differs from the names here
    rates: Rates | None = None  #: overrides genai-prices


class Provider(Frozen):
    """One account at one endpoint."""

    dialect: Dialect
    base_url: Annotated[str, pydantic.StringConstraints(pattern=r"^https?://[^\s/]+")]
    key_env: str | None = None  #: the variable that holds the key; absent for a server that needs none
    auth_header: str = "authorization"  #: `authorization` sends `Bearer <key>`, any other name the bare key
    headers: Mapping[str, str] = {}  #: further fixed headers, such as an API version
    title: str | None = None  #: how the provider writes its own name
    expected_latency_ms: Positive | None = None
    tasks: tuple[Name, ...] = ()  #: categories it is known to do well, for people; the chains decide
    limits: Limits = Limits()
    rate_limit_headers: RateLimitHeaders | None = None  #: absent for those of the dialect
    errors: Mapping[str, ErrorClass] = {}  #: what its own codes, types or HTTP statuses mean
    models: Mapping[str, Model]


class Category(Frozen):
    """A kind of work and where it goes: tiers of routes, the first tier first."""

    description: str = ""
    chain: tuple[tuple[Route, ...], ...]

    def routes(self) -> list[Route]:
        """All routes, first choice first."""
        return [route for tier in self.chain for route in tier]


class Registry(Frozen):
    """All of it. Read with `worker.routing.load.registry`."""

    frontier: Route  #: the model that savings are measured against
    default_category: Name  #: where a prompt goes when nobody can tell what it is: the safe, capable one
    providers: Mapping[Name, Provider]
    categories: Mapping[Name, Category]
    aliases: Mapping[str, Route] = {}  #: names that a prompt's `model` may use
    simulated: bool = False  #: every provider is the simulator

    def provider(self, name: str) -> Provider:
        return self.providers[name]

    def model(self, route: Route) -> Model:
        return self.providers[route.provider].models[route.model]
