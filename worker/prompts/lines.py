"""One piece of input becomes one prompt, or an error that says what is wrong with it. Pure.

The forms: a line of an OpenAI batch file, a short JSON line, a line of plain text; and from Python a string,
or a dict of either JSON form.
"""

from __future__ import annotations

import decimal
import re
from typing import Any

import msgspec

from worker import errors
from worker.prompts import bodies, files, pins
from worker.prompts.bodies import Refused
from worker.routing.load import Usable

MAX_CUSTOM_ID_CHARS = 512

#: The four fields of a line of an OpenAI batch file, https://platform.openai.com/docs/guides/batch.
OPENAI_FIELDS = frozenset({"custom_id", "method", "url", "body"})
URL = "/v1/chat/completions"
#: The fields of a short line that hold what is asked; a line has one of them.
QUESTIONS = ("prompt", "text", "messages")
#: The further fields of a short line that are not parameters of the request.
SHORT_FIELDS = frozenset({"prompt", "text", "system", "custom_id", "category", "model"})

_decoder = msgspec.json.Decoder(float_hook=decimal.Decimal)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class Prompt(msgspec.Struct, frozen=True):
    """A prompt as it is stored, but for the category that the classifier may still have to find."""

    prompt_no: int
    line_no: int
    source: str
    custom_id: str
    category: str | None  #: as given; None when the classifier decides
    pinned: str | None  #: `provider/model`
    body: str  #: JSON text of the request, without `model`
    text: str  #: what the classifier looks at
    metadata: str | None = None  #: JSON text of the fields that are not part of the request
    metadata_names: tuple[str, ...] = ()


class Parser:
    """Reads items under one registry.

    Args:
        usable: the registry and the providers that can be called.
        category: category of the prompts that name none, where the user gave one.
    """

    def __init__(self, usable: Usable, category: str | None = None) -> None:
        self._categories = usable.registry.categories
        self._pins = pins.Pins(usable)
        self._category = category
        if category is not None and category not in self._categories:
            raise errors.RegistryError(
                f"There is no category `{category}`. The registry has {self._allowed()}."
            )

    def parse(self, item: files.Item) -> Prompt:
        """Read one item.

        Raises:
            LineError: something is wrong with it; the message holds no text of it.
        """
        try:
            if type(item.data) is bytes:
                if item.form == "text":
                    return self._plain(item, _utf8(item.data))
                return self._object(item, _json(item.data))
            if isinstance(item.data, str):
                return self._plain(item, item.data)
            if isinstance(item.data, dict):
                return self._object(item, dict(item.data))
            raise Refused(f"it is a {type(item.data).__name__}; give a string or a dict")
        except Refused as e:
            raise errors.LineError(str(e), line_no=item.line_no, source=item.source) from None
        except RecursionError:
            reason = "it is nested too deep; flatten it"
            raise errors.LineError(reason, line_no=item.line_no, source=item.source) from None

    def _plain(self, item: files.Item, text: str) -> Prompt:
        if not text or text.isspace():
            raise Refused("the prompt is empty")
        body = bodies.Body([bodies.Message("user", text)])
        return self._prompt(item, None, None, None, body, {})

    def _object(self, item: files.Item, line: dict[str, Any]) -> Prompt:
        if "body" in line and (type(line["body"]) is dict or "url" in line or "method" in line):
            return self._openai(item, line)
        return self._short(item, line)

    def _openai(self, item: files.Item, line: dict[str, Any]) -> Prompt:
        if line.keys() != OPENAI_FIELDS:
            missing = ", ".join(sorted(OPENAI_FIELDS - line.keys()))
            unknown = ", ".join(bodies.name_of(name) for name in line.keys() - OPENAI_FIELDS)
            raise Refused(
                "a line of an OpenAI batch file has exactly custom_id, method, url and body; "
                + (f"this one lacks {missing}" if missing else f"this one also has {unknown}")
            )
        if line["method"] != "POST":
            raise Refused("method must be POST")
        if line["url"] != URL:
            raise Refused(f"url must be {URL}: other endpoints are not served")
        request = line["body"]
        if type(request) is not dict:
            raise Refused("body must be an object")
        if line["custom_id"] is None:
            raise Refused("custom_id must be text")
        request = dict(request)
        model = request.pop("model", None)
        return self._prompt(item, line["custom_id"], None, model, bodies.check(request), {})

    def _short(self, item: files.Item, line: dict[str, Any]) -> Prompt:
        request: dict[str, Any] = {}
        metadata: dict[str, Any] = {}
        for name, value in line.items():
            if name in bodies.PARAMETERS:
                request[name] = value
            elif name not in SHORT_FIELDS:
                metadata[name] = value
        request["messages"] = _messages(line)
        custom_id = line.get("custom_id")
        if custom_id is None and type(metadata.get("id")) in (str, int):
            custom_id = metadata.pop("id")
        body = bodies.check(request)
        return self._prompt(item, custom_id, line.get("category"), line.get("model"), body, metadata)

    def _prompt(
        self,
        item: files.Item,
        custom_id: object,
        category: object,
        model: object,
        body: bodies.Body,
        metadata: dict[str, Any],
    ) -> Prompt:
        text = bodies.encode(body)
        if len(text) > files.MAX_LINE_BYTES:
            raise Refused(
                f"the prompt is larger than {files.MAX_LINE_BYTES // 1024**2} MB; shorten or split it"
            )
        pinned = self._pins.route(model)
        return Prompt(
            prompt_no=item.prompt_no,
            line_no=item.line_no,
            source=item.source,
            custom_id=f"prompt-{item.prompt_no}" if custom_id is None else _custom_id(custom_id),
            category=self._category if category is None else self._known(category),
            pinned=None if pinned is None else str(pinned),
            body=text,
            text=bodies.question(body),
            metadata=bodies.encode(metadata) if metadata else None,
            metadata_names=tuple(map(str, metadata)),
        )

    def _known(self, category: object) -> str:
        if not isinstance(category, str):
            raise Refused(f"category must be text, one of {self._allowed()}")
        if category not in self._categories:
            # A long or odd word may be a misplaced prompt.
            raise Refused(
                f"the category {bodies.name_of(category)} is not in the registry; it has {self._allowed()}"
            )
        return category

    def _allowed(self) -> str:
        return ", ".join(self._categories)


def _messages(line: dict[str, Any]) -> list[Any]:
    found = [name for name in QUESTIONS if line.get(name) is not None]
    if not found:
        raise Refused("no messages: give one of prompt, text or messages")
    if len(found) > 1:
        raise Refused(f"{' and '.join(found)} are both given; keep one, or rename the field that is only data")
    name, asked, system = found[0], line[found[0]], line.get("system")
    if system is not None and not isinstance(system, str):
        raise Refused("system must be text")
    start = [{"role": "system", "content": system}] if system else []
    if name != "messages":
        if not isinstance(asked, str):
            raise Refused(f"{name} must be text; for a conversation use messages")
        if not asked or asked.isspace():
            raise Refused(f"{name} is empty")
        return [*start, {"role": "user", "content": asked}]
    if not isinstance(asked, list | tuple):
        raise Refused("messages must be a list of objects with role and content")
    if not asked:
        raise Refused("messages is empty: give at least one message")
    if start and any(isinstance(m, dict) and m.get("role") in ("system", "developer") for m in asked):
        raise Refused("system is given twice: in its own field and in messages; keep one")
    return [*start, *asked]


def _custom_id(value: object) -> str:
    if type(value) is int:
        return str(value)
    if not isinstance(value, str):
        raise Refused("custom_id must be text or a whole number")
    if not 1 <= len(value) <= MAX_CUSTOM_ID_CHARS:
        raise Refused(f"custom_id must have 1 to {MAX_CUSTOM_ID_CHARS} characters, not {len(value)}")
    if "\0" in value:
        raise Refused("custom_id holds a NUL character, which Postgres cannot store; remove it")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise Refused("custom_id holds half of a surrogate pair, which is no character; remove it") from None
    return value


def _utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as e:
        raise Refused(f"byte {e.start + 1} of the line is not UTF-8; save the file as UTF-8") from None


def _json(data: bytes) -> dict[str, Any]:
    try:
        line = _decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, ArithmeticError) as e:
        _utf8(data)
        if isinstance(e, msgspec.ValidationError | ArithmeticError):
            raise Refused("a number in it is too long") from None
        if "surrogate" in str(e) or ("truncated" in str(e) and _SURROGATE.search(data)):
            raise Refused("a \\u escape in it is half of a surrogate pair, which is no character") from None
        if found := re.search(r"(.*)\(byte (\d+)\)", str(e)):
            what = found[1].removeprefix("JSON is malformed: ").strip()
            raise Refused(f"it is not JSON: {what} at byte {found[2]}") from None
        raise Refused("it is not JSON: it ends too early; write one object a line") from None
    if type(line) is not dict:
        raise Refused('it is not a JSON object; write {"prompt": "…"}')
    return line
