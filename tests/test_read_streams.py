"""Reading what can't be entered in the middle: compressed files, .csv, .tsv and .txt, standard input."""

import bz2
import gzip
import io
import lzma
import random
import sys
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.normalize.run import normalize_corpus
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.read import cut as cutting
from dataprep.stages.read.cut import cut
from dataprep.stages.read.inputs import find_files
from dataprep.stages.read.rows import read_rows
from schemas.errors import InputError
from schemas.files import sha256_file
from schemas.manifest import InputFile


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


COMPRESS = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


def rows_of(path: Path) -> list[tuple]:
    """Read all rows; one that was turned away shows as (number, reason, detail)."""
    [file] = find_files([str(path)], leave_out=Path("cache/conversations"))
    digest = sha256()
    rows = [row for segment in cut(file, digest) for row in read_rows(segment)]
    assert digest.hexdigest() == sha256_file(path)
    return [
        (number, value.reason, value.detail) if isinstance(value, TurnedAway) else (number, value)
        for number, value, _ in rows
    ]


def written(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("packing", COMPRESS)
def test_compressed_lines_are_rows_and_the_source_has_no_endings(tmp_path: Path, packing: str) -> None:
    content = b'\xef\xbb\xbf{"a": 1}\n\n{"a": \n{"a": 4}'
    path = written(tmp_path / f"chats.v1.jsonl{packing}", COMPRESS[packing](content))
    assert rows_of(path) == [(1, {"a": 1}), (3, "broken-json", "not JSON: Expecting value at column 7"), (4, {"a": 4})]
    assert [file.source for file in find_files([str(tmp_path)], leave_out=tmp_path / "out")] == ["chats.v1"]


@pytest.mark.parametrize("packing", COMPRESS)
def test_compressed_json_may_be_an_array_or_lines(tmp_path: Path, packing: str) -> None:
    array, lines = (COMPRESS[packing](content) for content in (b'[\n{"a": 1},\n{"a": 2}\n]', b'{"a": 1}\n{"a": 2}\n'))
    assert rows_of(written(tmp_path / f"a.json{packing}", array)) == [(1, {"a": 1}), (2, {"a": 2})]
    assert rows_of(written(tmp_path / f"b.json{packing}", lines)) == [(1, {"a": 1}), (2, {"a": 2})]


@pytest.mark.parametrize("packing", COMPRESS)
def test_files_compressed_in_several_pieces_are_read_to_their_end(tmp_path: Path, packing: str) -> None:
    pieces = COMPRESS[packing](b'{"a": 1}\n') + COMPRESS[packing](b'{"a": 2}\n')
    assert rows_of(written(tmp_path / f"a.jsonl{packing}", pieces)) == [(1, {"a": 1}), (2, {"a": 2})]


@pytest.mark.parametrize("packing", COMPRESS)
def test_an_empty_compressed_file_holds_no_rows(tmp_path: Path, packing: str) -> None:
    assert rows_of(written(tmp_path / f"a.jsonl{packing}", b"")) == []
    assert rows_of(written(tmp_path / f"b.json{packing}", COMPRESS[packing](b""))) == []


@pytest.mark.parametrize("packing", COMPRESS)
def test_a_compressed_file_that_ends_early_is_an_error_since_its_rows_cannot_be_counted(
    tmp_path: Path, packing: str
) -> None:
    content = COMPRESS[packing](random.Random(1).randbytes(100_000).hex().encode())
    path = written(tmp_path / f"a.jsonl{packing}", content[: len(content) // 2])
    with pytest.raises(InputError, match=rf"a.jsonl{packing}: not a whole {packing} file: .*; compress or download"):
        rows_of(path)


@pytest.mark.parametrize("packing", COMPRESS)
def test_a_file_that_is_not_compressed_as_its_ending_says_is_named(tmp_path: Path, packing: str) -> None:
    path = written(tmp_path / f"a.jsonl{packing}", b'{"a": 1}\n' * 10)
    with pytest.raises(InputError, match=rf"a.jsonl{packing}: not a whole {packing} file: "):
        rows_of(path)


def test_a_stream_is_cut_at_the_ends_of_lines_and_its_rows_keep_their_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "READ_BYTES", 7)
    monkeypatch.setattr(cutting, "SEGMENT_BYTES", 20)
    content = b"".join(b"[%d]\n" % number * (1 + number % 3) for number in range(50)) + b"[99]"
    [file] = find_files([str(written(tmp_path / "a.jsonl.gz", gzip.compress(content)))], leave_out=tmp_path / "out")
    segments = list(cut(file, sha256()))
    assert len(segments) > 10
    assert sum(segment.bytes for segment in segments) <= file.bytes
    read = [(number, raw) for segment in segments for number, _, raw in read_rows(segment)]
    assert read == [(number, line.encode()) for number, line in enumerate(content.decode().split("\n"), 1)]


def test_a_compressed_parquet_file_is_not_taken_for_one(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet.gz", b"")
    with pytest.raises(InputError, match=r"a.parquet.gz: cannot tell the kind of file by its ending"):
        find_files([str(path)], leave_out=tmp_path / "out")


def test_compressed_and_plain_rows_become_the_same_conversations_whatever_the_workers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataprep.normalize.share.UNIT_BYTES", 200)
    monkeypatch.setattr(cutting, "SEGMENT_BYTES", 50)
    monkeypatch.setattr(cutting, "READ_BYTES", 16)
    written(tmp_path / "a.jsonl.gz", gzip.compress(b"".join(b'{"text": "page %d"}\n' % n for n in range(100)) + b"x"))
    manifests = [
        normalize_corpus([str(tmp_path / "a.jsonl.gz")], tmp_path / str(workers), workers=workers) for workers in (1, 2)
    ]
    assert manifests[0] == manifests[1]
    assert len(manifests[0].parts) > 5
    assert (manifests[0].rows, manifests[0].kept, manifests[0].turned_away) == (101, 100, {"broken-json": 1})


def test_csv_rows_are_strings_under_the_names_of_the_header_and_count_as_lines(tmp_path: Path) -> None:
    content = '\ufeffprompt,response\r\n7,\r\n\r\n"a ""b"", c","two\nlines"\r\nlast,中'.encode()
    expected = [
        (2, {"prompt": "7", "response": ""}),
        (4, {"prompt": 'a "b", c', "response": "two\nlines"}),
        (6, {"prompt": "last", "response": "中"}),
    ]
    assert rows_of(written(tmp_path / "a.csv", content)) == expected
    assert rows_of(written(tmp_path / "a.csv.gz", gzip.compress(content))) == expected


def test_tsv_cells_are_divided_by_tabs(tmp_path: Path) -> None:
    assert rows_of(written(tmp_path / "a.tsv", b"text\tn\na, b\t1\n\t\n")) == [
        (2, {"text": "a, b", "n": "1"}),
        (3, {"text": "", "n": ""}),
    ]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_cells_of_a_csv_may_be_divided_by_what_its_header_has_for_commas(tmp_path: Path, delimiter: str) -> None:
    path = written(tmp_path / "a.csv", f'prompt{delimiter}response\n"a{delimiter}b"{delimiter}1,5\n'.encode())
    assert rows_of(path) == [(2, {"prompt": f"a{delimiter}b", "response": "1,5"})]


def test_a_broken_csv_row_costs_itself_only(tmp_path: Path) -> None:
    content = b'a,b\n1,2\n"x" y,3\n4\n5,\xd6\xd0\n"never closed,6\n7,8\n'
    assert rows_of(written(tmp_path / "a.csv", content)) == [
        (2, {"a": "1", "b": "2"}),
        (3, "unreadable-rows", "a quote is not closed, or text follows a closing quote"),
        (4, "unreadable-rows", "1 cells; the header has 2"),
        (5, "bad-encoding", "byte 0xd6 at position 3 is not UTF-8"),
        (6, "unreadable-rows", "a quote is not closed, or text follows a closing quote"),
        (7, {"a": "7", "b": "8"}),
    ]


def test_a_csv_quote_that_is_never_closed_is_not_held_in_memory_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataprep.stages.read.delimited.RECORD_CHARACTERS", 10)
    rows = rows_of(written(tmp_path / "a.csv", b'a,b\n"x,1\n' + b"y,2\n" * 5 + b'z,"3"\n'))
    assert [row[:2] for row in rows[:2]] == [(2, "unreadable-rows"), (3, {"a": "y", "b": "2"})]
    assert rows[-1] == (8, {"a": "z", "b": "3"})


def test_a_csv_without_rows_or_with_a_header_that_cannot_be_used(tmp_path: Path) -> None:
    assert rows_of(written(tmp_path / "a.csv", b"")) == rows_of(written(tmp_path / "b.csv", b"a,b\n")) == []
    with pytest.raises(InputError, match=r"c.csv:1: column 'a' stands twice in the header; rename one"):
        rows_of(written(tmp_path / "c.csv", b"a,b,a\n1,2,3\n"))
    with pytest.raises(InputError, match=r"d.csv:1: the header is no row of cells; close its quotes"):
        rows_of(written(tmp_path / "d.csv", b'"a,b\n1,2\n'))


def test_csv_is_cut_at_the_ends_of_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"prompt,response\n" + b"".join(b'%d,"a\n%s"\n\n' % (n, b"b" * n) for n in range(50)) + b'"\n'
    path = written(tmp_path / "a.csv", content)
    whole = rows_of(path)
    assert len(whole) == 51
    monkeypatch.setattr(cutting, "READ_BYTES", 7)
    monkeypatch.setattr(cutting, "SEGMENT_BYTES", 20)
    [file] = find_files([str(path)], leave_out=tmp_path / "out")
    assert len(list(cut(file, sha256()))) > 10
    assert rows_of(path) == whole


@pytest.mark.parametrize("workers", [1, 2])
def test_standard_input_is_lines_of_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, workers: int) -> None:
    content = b'{"text": "one"}\n\n{"text": \n{"text": "four"}'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    manifest = normalize_corpus(["-"], tmp_path, workers=workers)
    assert (manifest.rows, manifest.kept, manifest.turned_away) == (3, 2, {"broken-json": 1})
    assert manifest.sources == {"stdin": 2}
    assert manifest.inputs == [InputFile(path="-", bytes=len(content), sha256=sha256(content).hexdigest())]
    [part] = manifest.parts
    origins = pq.read_table(tmp_path / "conversations" / part.file)["origin"].to_pylist()
    assert origins == [{"file": "-", "row": 1}, {"file": "-", "row": 4}]


def test_empty_standard_input_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(InputError, match="-: holds no rows; name a file with at least one"):
        normalize_corpus(["-"], tmp_path, workers=None)


def test_a_text_file_is_one_document_without_the_blank_lines_around_it(tmp_path: Path) -> None:
    content = "\ufeff\r\n  One.\r\n\r\nTwo. \r\n\r\n".encode()
    assert rows_of(written(tmp_path / "a.txt", content)) == [(2, {"text": "  One.\n\nTwo. "})]
    assert rows_of(written(tmp_path / "a.txt.gz", gzip.compress(content))) == [(2, {"text": "  One.\n\nTwo. "})]
    assert rows_of(written(tmp_path / "b.txt", b"")) == rows_of(written(tmp_path / "c.txt", b" \n\n")) == []
    assert rows_of(written(tmp_path / "d.txt", b"a\xff")) == [
        (1, "bad-encoding", "byte 0xff at position 2 is not UTF-8")
    ]


def test_a_large_text_file_is_divided_at_blank_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dataprep.stages.read.documents.DOCUMENT_BYTES", 10)
    path = written(tmp_path / "a.txt", b"a\n\nb\nb\n\n\nc c c c c c c c\n \nd\n")
    expected = [(1, {"text": "a\n\nb\nb"}), (7, {"text": "c c c c c c c c"}), (9, {"text": "d"})]
    for read_bytes in (3, 1000):
        monkeypatch.setattr(cutting, "READ_BYTES", read_bytes)
        assert rows_of(path) == expected


def test_a_large_text_file_without_blank_lines_is_divided_at_the_ends_of_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dataprep.stages.read.documents.DOCUMENT_BYTES", 1)
    monkeypatch.setattr(cutting, "READ_BYTES", 5)
    rows = rows_of(written(tmp_path / "a.txt", b"ab\n" * 10))
    assert rows[0] == (1, {"text": "ab\nab\nab\nab\nab\nab"})
    assert rows[1:] == [(7, {"text": "ab\nab\nab\nab"})]


def test_text_files_are_read_where_they_are_named_and_not_because_they_lie_in_a_folder(tmp_path: Path) -> None:
    for name in ("a.jsonl", "b.txt", "c.txt.gz"):
        written(tmp_path / name, b"")

    def found(given: str) -> list[str]:
        return [file.path.name for file in find_files([str(tmp_path / given)], leave_out=tmp_path / "out")]

    assert found("") == found("*") == ["a.jsonl"]
    assert found("*.txt") == found("b.txt") == ["b.txt"]
    assert found("*.txt.gz") == ["c.txt.gz"]


@pytest.mark.parametrize("packing", ["", ".gz"])
@pytest.mark.parametrize("read_bytes", [1, 7, 64, 1 << 20])
def test_a_line_too_long_to_be_a_row_is_passed_over_and_counted(tmp_path, monkeypatch, packing, read_bytes):
    monkeypatch.setattr(cutting, "LONGEST_LINE", 200)
    monkeypatch.setattr(cutting, "READ_BYTES", read_bytes)
    long = b'{"text": "%b"}' % (b"long " * 60)
    lines = b"\n".join([b'{"text": "one"}', long, b"", b'{"text": "two"}', long, long])
    path = written(tmp_path / f"a.jsonl{packing}", COMPRESS[packing](lines) if packing else lines)
    if read_bytes == 1 << 20:  # no more is held than is read at once
        assert [number for number, *_ in rows_of(path)] == [1, 2, 4, 5, 6]
        return
    assert rows_of(path) == [
        (1, {"text": "one"}),
        (2, "too-large", "the line is 313 bytes long"),
        (4, {"text": "two"}),
        (5, "too-large", "the line is 313 bytes long"),
        (6, "too-large", "the line is 312 bytes long"),
    ]
