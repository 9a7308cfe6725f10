"""Promptyard: large offline batches of LLM prompts over many providers."""

from __future__ import annotations
