"""The programs of docs/python.md run and print what the page says, on real servers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

import worker

PAGE = (Path(__file__).parents[2] / "docs" / "python.md").read_text("utf-8")
PROGRAMS = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", PAGE, re.DOTALL)
REVIEWS = "id,product,text\nr-1,kettle,It boils fast.\nr-2,lamp,It broke on the second day.\n"


def test_every_program_of_the_page_says_what_it_prints() -> None:
    assert len(PROGRAMS) == PAGE.count("```python") >= 3


@pytest.mark.parametrize(("program", "printed"), PROGRAMS, ids=["csv", "rejects", "asyncio"])
async def test_a_program_of_the_page_stores_a_batch_and_prints_what_the_page_says(
    program: str, printed: str, database_url: str, broker_url: str, tmp_path: Path
) -> None:
    (tmp_path / "reviews.csv").write_text(REVIEWS, encoding="utf-8")
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        cwd=tmp_path,
        env={
            **os.environ,
            "DATABASE_URL": database_url,
            "BROKER_URL": broker_url,
            "GROQ_API_KEY": "k",
            "PYTHONUTF8": "1",
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, printed, "")

    connection = await asyncpg.connect(database_url)
    try:
        prompts = await connection.fetch("SELECT metadata ->> 'product' AS product FROM prompts")
        unpublished = await connection.fetchval("SELECT count(*) FROM shards WHERE published_at IS NULL")
        counted = await connection.fetchval("SELECT prompt_count FROM batches WHERE state = 'running'")
    finally:
        await connection.close()
    assert counted == len(prompts) > 0
    assert unpublished == 0
    if "reviews.csv" in program:
        assert [row["product"] for row in prompts] == ["kettle", "lamp"]


@pytest.mark.parametrize("name", ["submit", "asubmit"])
def test_the_page_names_every_argument(name: str) -> None:
    function = getattr(worker, name)
    arguments = set(function.__annotations__) - {"return"}
    assert arguments == set(re.findall(r"^\| `(\w+)` \| ", PAGE.split("`worker.Batch`")[0], re.MULTILINE))
