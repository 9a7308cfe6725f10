"""Reading files: line ends, compression, names, limits, and the digest."""

from __future__ import annotations

import bz2
import gzip
import io
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import hypothesis
import pytest
import zstandard
from hypothesis import strategies as st

from worker import errors
from worker.prompts import files


def read(*paths: Path | str) -> list[tuple[int, int, str, object]]:
    found: list[tuple[int, int, str, object]] = []
    for item in files.Reader(paths):
        assert isinstance(item, files.Item), str(item)
        found.append((item.line_no, item.prompt_no, item.form, item.data))
    return found


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def zst(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


TWO = b'{"prompt": "a"}\n{"prompt": "b"}\n'
TWO_READ = [(1, 1, "json", b'{"prompt": "a"}'), (2, 2, "json", b'{"prompt": "b"}')]


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zst])
@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz", "in.jsonl.zst", "in.dat", "in"])
def test_compression_is_known_by_the_content_whatever_the_name(
    tmp_path: Path, name: str, pack: Callable[[bytes], bytes]
) -> None:
    assert read(write(tmp_path / name, pack(TWO))) == TWO_READ


def test_members_and_frames_that_follow_each_other_are_all_read(tmp_path: Path) -> None:
    first, second = TWO.splitlines(keepends=True)
    assert read(write(tmp_path / "a", gzip.compress(first) + gzip.compress(second))) == TWO_READ
    skippable = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"12345"  # as pzstd writes them
    for number, packed in enumerate(
        [zst(first) + zst(second), skippable + zst(first) + skippable + zst(second)]
    ):
        assert read(write(tmp_path / f"b{number}", packed)) == TWO_READ


@pytest.mark.parametrize("pack", [gzip.compress, zst])
def test_a_compressed_file_that_is_cut_off_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    packed = pack(TWO * 1000)
    for size in (5, len(packed) // 2, len(packed) - 3):
        with pytest.raises(errors.InputError, match="compressed and damaged or cut off"):
            list(files.Reader([write(tmp_path / "in", packed[:size])]))


@pytest.mark.parametrize("pack", [gzip.compress, zst])
def test_garbage_behind_compressed_content_is_refused(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    with pytest.raises(errors.InputError, match="compressed and damaged"):
        list(files.Reader([write(tmp_path / "in", pack(TWO) + b"garbage!")]))


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.txt", b'{"prompt": "a"}', "text"),
        ("a.txt.gz", b'{"prompt": "a"}', "text"),
        ("a.JSONL", b"plain", "json"),
        ("a.ndjson", b"plain", "json"),
        ("a.json", b"plain", "json"),
        ("a", b"\n \n  {", "json"),
        ("a", b"plain {", "text"),
        ("a.csv", b"[INST] Hi", "text"),
        ("a", b"\xef\xbb\xbf{", "json"),
    ],
)
def test_the_name_decides_the_form_and_else_the_first_byte(
    tmp_path: Path, name: str, content: bytes, form: str
) -> None:
    (item,) = read(write(tmp_path / name, content))
    assert item[2] == form


def test_blank_lines_are_skipped_and_still_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\n one\n\n  \t\r\ntwo")
    assert read(path) == [(2, 2, "text", b" one"), (5, 5, "text", b"two")]


def test_line_ends_of_windows_and_a_byte_order_mark_are_no_part_of_a_prompt(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", b"\xef\xbb\xbfone\r\ntwo\r\n")
    assert read(path) == [(1, 1, "text", b"one"), (2, 2, "text", b"two")]


def test_prompt_numbers_count_on_over_files(tmp_path: Path) -> None:
    a = write(tmp_path / "a.txt", b"one\n\n")
    b = write(tmp_path / "b.txt", b"\nthree\nfour")
    assert read(a, b) == [(1, 1, "text", b"one"), (2, 4, "text", b"three"), (3, 5, "text", b"four")]


def test_a_line_that_is_too_long_is_reported_and_never_held(tmp_path: Path) -> None:
    # Given a line of three times what is allowed, between two good ones
    path = tmp_path / "a.txt"
    with gzip.open(path, "wb", compresslevel=1) as out:
        out.write(b"one\n")
        for _ in range(3 * 32):
            out.write(b"x" * 1024 * 1024)
        out.write(b"\nthree\n")
    # When the file is read
    tracemalloc.start()
    try:
        first, second, third = files.Reader([path])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # Then the good lines are there, and it took little more than one line may be long
    assert isinstance(first, files.Item) and first.data == b"one"
    assert isinstance(third, files.Item) and (third.line_no, third.data) == (3, b"three")
    assert str(second) == f"{path}:2: the line is longer than 32 MB; shorten or split it"
    assert peak < 2 * files.MAX_LINE_BYTES


@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
def test_a_line_of_exactly_the_limit_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: bytes
) -> None:
    monkeypatch.setattr(files, "MAX_LINE_BYTES", 100)
    monkeypatch.setattr(files, "BLOCK_BYTES", 7)
    assert read(write(tmp_path / "a.txt", b"x" * 100 + end)) == [(1, 1, "text", b"x" * 100)]
    (error,) = files.Reader([write(tmp_path / "b.txt", b"x" * 101 + end)])
    assert isinstance(error, errors.LineError) and error.line_no == 1


@hypothesis.settings(deadline=None)
@hypothesis.given(st.lists(st.binary(max_size=30)), st.integers(1, 40), st.sampled_from([b"\n", b"\r\n"]))
def test_lines_are_the_same_however_the_blocks_fall(lines: list[bytes], block: int, end: bytes) -> None:
    clean = [line.replace(b"\n", b"").replace(b"\r", b"") for line in lines]
    stream = io.BytesIO(b"t" + end + end.join(clean))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK_BYTES", block)
        patch.setattr(sys, "stdin", io.TextIOWrapper(stream))
        found = read("-")
    expected = [(n, n, "text", line) for n, line in enumerate([b"t", *clean], start=1) if line.strip()]
    assert found == expected


def test_standard_input_is_read_from_a_pipe() -> None:
    program = (
        "from worker.prompts import files\nfor item in files.Reader(['-']): print(item.line_no, item.form)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=zst(TWO), capture_output=True, check=True)
    assert done.stdout == b"1 json\n2 json\n"


def test_what_is_no_file_of_prompts_is_refused(tmp_path: Path) -> None:
    refused = {
        tmp_path / "none.txt": "there is no such file",
        tmp_path: "is a folder. Name the files in it",
        write(tmp_path / "a.json", b'\n [{"prompt": "a"}]'): "is one JSON array. Write one object a line",
        write(tmp_path / "b", b'[\n {"prompt": "a"}]'): "is one JSON array. Write one object a line",
        write(tmp_path / "d.bz2", bz2.compress(TWO)): "is a bzip2 file, which is not read. Give it as text",
        write(tmp_path / "c.txt", "plain".encode("utf-16")): "is UTF-16. Save it as UTF-8",
    }
    for path, reason in refused.items():
        with pytest.raises(errors.InputError, match=reason):
            list(files.Reader([path]))
    with pytest.raises(errors.InputError, match="Standard input is named twice"):
        files.Reader(["-", "-"])


def test_an_empty_file_has_no_items(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.txt", b"")) == []
    assert read(write(tmp_path / "b.jsonl", b"\n\n")) == []


def test_the_digest_is_that_of_reading_and_does_not_depend_on_name_or_compression(tmp_path: Path) -> None:
    plain = write(tmp_path / "a.jsonl", TWO)
    reader = files.Reader([plain], {"category": "code"})
    list(reader)
    expected = files.digest([plain], {"category": "code"})
    assert reader.digest() == expected
    assert files.digest([write(tmp_path / "b", gzip.compress(TWO))], {"category": "code"}) == expected
    assert files.digest([write(tmp_path / "c.json", zst(TWO))], {"category": "code"}) == expected


def test_the_digest_tells_other_input_apart(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", TWO)
    changed = write(tmp_path / "b.jsonl", TWO.replace(b'"b"', b'"c"'))
    as_text = write(tmp_path / "a.txt", TWO)
    halves = [write(tmp_path / f"{n}.jsonl", line) for n, line in enumerate(TWO.splitlines(keepends=True))]
    inputs = [[a], [changed], [as_text], [a, a], halves]
    digests = [files.digest(paths) for paths in inputs] + [files.digest([a], {"category": "code"})]
    assert len(set(digests)) == 6
    assert files.digest([a, "-"]) is None
