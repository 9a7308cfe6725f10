"""Promptyard: large offline batches of LLM prompts over many providers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.prompts.python import Batch, asubmit, submit

__all__ = ["Batch", "asubmit", "submit"]


def __getattr__(name: str) -> object:
    """Import what programs use when they use it: a worker or a command needs none of it to start."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from worker.prompts import python

    return getattr(python, name)
