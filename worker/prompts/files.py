"""Files of prompts, as a stream of lines: names, compression, line ends, and what cannot be read at all.

Memory is bounded by `MAX_LINE_BYTES` and a few blocks, whatever the size of a file.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import re
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import IO, Any, Literal, NamedTuple

import zstandard

from worker import errors

#: A longer line is reported and skipped; it is never read into memory whole.
MAX_LINE_BYTES = 32 * 1024 * 1024
#: Bytes read at a time.
BLOCK_BYTES = 1024 * 1024
#: Compressed zstd bytes handed on at a time: a few can become many thousand times as much.
ZSTD_SLICE_BYTES = 4096

STDIN = "-"
BOM = b"\xef\xbb\xbf"

#: First bytes of what people have too, and what it is.
_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive",
    b"\xfd7zXZ": "an xz file",
    b"BZh": "a bzip2 file",
    b"PAR1": "Parquet",
}

Form = Literal["json", "text"]


class Item(NamedTuple):
    """One piece of input that should be a prompt."""

    source: str  #: name of the file, `-` for standard input
    line_no: int  #: in its file, from 1
    prompt_no: int  #: counted on over all files of the submission, from 1
    form: Form
    data: object  #: bytes of a file's line, or what a Python program passed


Block = Iterator[bytes]


class Reader:
    """Reads files one after the other, once.

    Iterating yields an `Item` for each line that is not blank, and a `LineError` for a line that is too long.

    Raises:
        InputError: a file cannot be opened, is damaged, or is of a kind that is not taken.
    """

    def __init__(self, paths: Sequence[str | Path], options: Mapping[str, Any] | None = None) -> None:
        self.paths = [str(path) for path in paths]
        if self.paths.count(STDIN) > 1:
            raise errors.InputError("Standard input is named twice. Name it once.")
        self._hash = _start_hash(options)

    @property
    def source(self) -> str:
        """The files' names, for people."""
        return ", ".join(self.paths)

    def digest(self) -> str:
        """SHA-256 over the files that were read to their end, and the options; see `digest`."""
        return self._hash.hexdigest()

    def __iter__(self) -> Iterator[Item | errors.LineError]:
        before = 0
        for path in self.paths:
            line_no = 0
            content = hashlib.sha256()
            for form, line_no, data in _lines(path, content.update):
                if data is None:
                    yield errors.LineError(
                        f"the line is longer than {MAX_LINE_BYTES // 1024**2} MB; shorten or split it",
                        line_no=line_no,
                        source=path,
                    )
                elif not data or data.isspace():
                    continue
                else:
                    yield Item(path, line_no, before + line_no, form, data)
            before += line_no
            self._hash.update(content.digest())


def digest(paths: Sequence[str | Path], options: Mapping[str, Any] | None = None) -> str | None:
    """Read files once, without parsing, and give what `Reader.digest` gives after reading them.

    Equal digests mean the same lines under the same options, however the files are named or compressed. None
    when standard input is among them: it can be read only once.

    Raises:
        InputError: a file cannot be opened or is damaged.
    """
    if STDIN in map(str, paths):
        return None
    hashed = _start_hash(options)
    for path in paths:
        content = hashlib.sha256()
        with _opened(str(path)) as stream:
            _, blocks = _recognised(str(path), _decompressed(str(path), stream), content.update)
            for _ in blocks:
                pass
        hashed.update(content.digest())
    return hashed.hexdigest()


def _start_hash(options: Mapping[str, Any] | None) -> hashlib._Hash:
    return hashlib.sha256(json.dumps(dict(options or {}), sort_keys=True, default=str).encode())


@contextlib.contextmanager
def _opened(path: str) -> Iterator[IO[bytes]]:
    if path == STDIN:
        yield sys.stdin.buffer
        return
    try:
        stream = open(path, "rb")  # noqa: PTH123, SIM115 - only the opening is guarded; it is closed below
    except FileNotFoundError:
        raise errors.InputError(f"{path}: there is no such file.") from None
    except IsADirectoryError:
        raise errors.InputError(f"{path} is a folder. Name the files in it.") from None
    except OSError as e:
        raise errors.InputError(f"{path} cannot be opened: {e.strerror}.") from None
    with stream:
        yield stream


def _decompressed(path: str, stream: IO[bytes]) -> Block:
    """Read in blocks; gzip and zstd are known by their first bytes, not by the file's name."""
    head = _read_fully(stream, 10)
    for start, kind in _OTHER_KINDS.items():
        if head.startswith(start):
            raise errors.InputError(
                f"{path} is {kind}, which is not read. Give it as text, plain or as .gz or .zst."
            )
    try:
        if head[:2] == b"\x1f\x8b":
            with gzip.GzipFile(fileobj=io.BufferedReader(_Rejoined(head, stream), BLOCK_BYTES)) as unpacked:
                while block := unpacked.read(BLOCK_BYTES):
                    yield block
        elif head[:4] == b"\x28\xb5\x2f\xfd" or (head[1:4] == b"\x2a\x4d\x18" and head[0] >> 4 == 5):
            yield from _unzstd(head, stream)
        else:
            yield head
            while block := stream.read(BLOCK_BYTES):
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as e:
        raise errors.InputError(f"{path} is compressed and damaged or cut off: {e}. Make it anew.") from None
    except OSError as e:
        raise errors.InputError(f"{path} cannot be read: {e.strerror or e}.") from None


def _read_fully(stream: IO[bytes], size: int) -> bytes:
    """A pipe may give less than was asked for."""
    data = b""
    while len(data) < size and (more := stream.read(size - len(data))):
        data += more
    return data


class _Rejoined(io.RawIOBase):
    """A stream with the bytes in front that were read to recognise it."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self._head = head
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data, self._head = self._head or self._stream.read(len(buffer)), b""
        buffer[: len(data)] = data
        return len(data)


def _unzstd(head: bytes, stream: IO[bytes]) -> Block:
    unpack = zstandard.ZstdDecompressor()
    data, frame = head + stream.read(BLOCK_BYTES), unpack.decompressobj()
    while data:
        for start in range(0, len(data), ZSTD_SLICE_BYTES):
            part = data[start : start + ZSTD_SLICE_BYTES]
            while part:
                if frame.eof:
                    frame = unpack.decompressobj()
                if block := frame.decompress(part):
                    yield block
                part = frame.unused_data if frame.eof else b""
        data = stream.read(BLOCK_BYTES)
    if not frame.eof:
        raise EOFError("it ends in the middle of a frame")


def _recognised(path: str, blocks: Block, update: Callable[[bytes], object]) -> tuple[Form, Block]:
    """Decide between JSON lines and plain text, and hash both the decision and the content.

    The name decides where it can (`.jsonl`, `.ndjson`, `.json`, `.txt`, each also with `.gz` or `.zst`), else
    the first byte that is not blank: `{` means JSON lines.
    """
    head = b""
    while len(head) < len(BOM) or not head.removeprefix(BOM).strip():
        block = next(blocks, None)
        if block is None:
            break
        # a mebibyte of blanks decides nothing either
        head = head + block
        if len(head) > BLOCK_BYTES:
            break
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise errors.InputError(f"{path} is UTF-16. Save it as UTF-8.")
    head = head.removeprefix(BOM)
    suffix = PurePath(re.sub(r"\.(gz|zst)$", "", path.lower())).suffix
    start = head.lstrip()[:1024]
    form: Form
    if suffix == ".txt":
        form = "text"
    elif suffix in {".jsonl", ".ndjson", ".json"}:
        form = "json"
    else:
        form = "json" if start[:1] == b"{" or re.match(rb"\[\s*\{", start) else "text"
    if form == "json" and start[:1] == b"[":
        raise errors.InputError(
            f"{path} is one JSON array. Write one object a line (JSON Lines): jq -c '.[]' FILE > FILE.jsonl"
        )
    update(f"{form}\n".encode())
    return form, _hashed(head, blocks, update)


def _hashed(head: bytes, blocks: Block, update: Callable[[bytes], object]) -> Block:
    update(head)
    yield head
    for block in blocks:
        update(block)
        yield block


def _lines(path: str, update: Callable[[bytes], object]) -> Iterator[tuple[Form, int, bytes | None]]:
    """Yield the form, the line's number and the line without its end; None for a line that is too long."""
    with _opened(path) as stream:
        form, blocks = _recognised(path, _decompressed(path, stream), update)
        line_no = 0
        parts: list[bytes] = []  # of the line that has not ended yet
        size = 0
        for block in blocks:
            first, *rest = block.split(b"\n")
            size += len(first)
            if size <= MAX_LINE_BYTES + 1:  # one for a carriage return
                parts.append(first)
            else:
                parts.clear()
            if not rest:
                continue
            line_no += 1
            yield form, line_no, _ended(parts, size)
            last = rest.pop()
            for line in rest:
                line_no += 1
                yield form, line_no, line[:-1] if line.endswith(b"\r") else line
            parts, size = [last], len(last)
        if size:
            yield form, line_no + 1, _ended(parts, size)


def _ended(parts: list[bytes], size: int) -> bytes | None:
    if size > MAX_LINE_BYTES + 1:
        return None
    line = b"".join(parts).removesuffix(b"\r")
    return line if len(line) <= MAX_LINE_BYTES else None
