"""Kinds of failed calls. They stand here because routing decides by them and providers only name them."""

from __future__ import annotations

import enum


class ErrorClass(enum.StrEnum):
    """Classes of failed calls, by what can be done about them."""

    PROMPT = "prompt"  #: this prompt is refused everywhere alike: final
    CONTEXT = "context_length"  #: too long for this model: a larger one may do
    CONTENT = "content_refused"  #: a content policy said no: one try elsewhere
    RATE_LIMITED = "rate_limited"  #: wait as told, then the same provider
    OVERLOADED = "overloaded"  #: wait, and send less
    TRANSIENT = "transient"  #: server error, broken connection: again soon
    TIMEOUT = "timeout"  #: no answer by the deadline: again soon
    MALFORMED = "malformed"  #: an answer nobody can read: again soon
    QUOTA = "quota"  #: out of money or of the day's quota: the next provider
    AUTH = "auth"  #: the key is refused: the next provider
    CONFIG = "config"  #: no such model, or the request's form is refused: the next provider
    NO_WORKER = "no_worker"  #: no worker of the provider runs: the next provider
    LOST = "lost"  #: the worker died in the call: nobody knows
