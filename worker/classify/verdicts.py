"""What a classifier says, and how it is asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol

Source = Literal["classified", "default"]


class Verdict(NamedTuple):
    """The category of one prompt."""

    category: str
    confidence: float  #: 0 to 1
    source: Source  #: `default`: nobody could tell, so it goes where the registry sends such prompts


class Classifier(Protocol):
    """Finds the category of prompts by what their last user turn says."""

    def classify(self, texts: Sequence[str]) -> list[Verdict]:
        """Give one verdict for each text, in order."""
