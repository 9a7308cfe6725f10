"""Prompts from a program instead of a file: `python examples/producer.py`, then `promptyard status`.

Any iterable of dicts will do, however long: it is read as it is stored, never held in memory. A dict is a
line of a JSONL file, so `category`, `system`, `temperature` and the rest mean the same here.
"""

from __future__ import annotations

from collections.abc import Iterator

import worker

CITIES = ["Lisbon", "Nairobi", "Hanoi", "Quito", "Tallinn"]
QUESTIONS = {
    "population": "How many people live in {city}?",
    "river": "Which river or sea is {city} on?",
    "food": "Name one dish that {city} is known for, and describe it in one sentence.",
}


def prompts() -> Iterator[dict[str, str]]:
    for city in CITIES:
        for topic, question in QUESTIONS.items():
            yield {"custom_id": f"{city.lower()}-{topic}", "prompt": question.format(city=city)}


if __name__ == "__main__":
    batch = worker.submit(prompts(), name="cities")
    print(f"batch {batch.id}: {batch.prompt_count} prompts stored, {batch.rejected_count} rejected")
