"""docs/settings.md lists what worker/settings.py and the registry read.

`python tests/unit/test_settings_docs.py` prints the table of settings to paste.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import annotated_types
from pydantic import fields

from worker import settings
from worker.routing import load

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "settings.md").read_text("utf-8")
SOURCE = (ROOT / "worker" / "settings.py").read_text("utf-8")

#: Defaults that depend on who asks.
COMPUTED_DEFAULTS = {"home": "`~/.promptyard`; for root `/var/lib/promptyard`"}


def table() -> str:
    """The settings as the page should list them, from the fields and the comments above them."""
    rows = ["| variable | default | allowed | meaning |", "| --- | --- | --- | --- |"]
    for name, field in settings.Settings.model_fields.items():
        found = re.search(rf"^((?:    #: .*\n)+)    {name}: ", SOURCE, re.MULTILINE)
        assert found is not None, f"worker/settings.py has no comment above {name}"
        meaning = " ".join(line.strip().removeprefix("#: ") for line in found[1].splitlines())
        rows.append(f"| `{variable(name, field)}` | {default(name, field)} | {allowed(field)} | {meaning} |")
    return "\n".join(rows)


def variable(name: str, field: fields.FieldInfo) -> str:
    return str(field.validation_alias or f"PROMPTYARD_{name.upper()}")


def default(name: str, field: fields.FieldInfo) -> str:
    if name in COMPUTED_DEFAULTS:
        return COMPUTED_DEFAULTS[name]
    return "not set" if field.default is None else f"{field.default:g}"


def allowed(field: fields.FieldInfo) -> str:
    bounds = {}
    for bound in field.metadata:
        if isinstance(bound, annotated_types.Ge):
            bounds["from"] = f"{bound.ge}"
        elif isinstance(bound, annotated_types.Gt):
            bounds["over"] = f"{bound.gt}"
        elif isinstance(bound, annotated_types.Le):
            bounds["to"] = f"{bound.le}"
    if "over" in bounds:
        return f"a number over {bounds['over']}"
    if bounds:
        return f"{bounds['from']} to {bounds['to']}"
    return "a path" if "Path" in str(field.annotation) else "a URL"


def listed(heading: str) -> Iterator[list[str]]:
    """The cells of the table below a heading of the page."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert section is not None, heading
    for row in re.findall(r"^\| (.*) \|$", section[1], re.MULTILINE)[2:]:
        yield row.split(" | ")


def test_the_page_lists_every_setting_with_its_default_and_meaning() -> None:
    assert table() in PAGE


def test_the_page_lists_the_variable_of_every_providers_key() -> None:
    shipped = load.registry(settings.Settings())
    expected = {
        f"{provider.title} (`{name}`)": f"`{provider.key_env}`" for name, provider in shipped.providers.items()
    }
    assert {provider: key for provider, key in listed("Keys")} == expected


def test_every_promptyard_variable_that_the_docs_name_is_a_setting() -> None:
    known = {variable(name, field) for name, field in settings.Settings.model_fields.items()}
    for page in [*ROOT.glob("docs/*.md"), ROOT / "CONTRIBUTING.md", ROOT / "docker-compose.yml"]:
        named = set(re.findall(r"\bPROMPTYARD_[A-Z][A-Z_]*[A-Z]\b", page.read_text("utf-8")))
        assert named <= known, page.name


if __name__ == "__main__":
    print(table())
