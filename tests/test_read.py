"""Finding input files, cutting them, and reading their rows."""

import os
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.read import cut as cutting
from dataprep.stages.read.cut import cut
from dataprep.stages.read.inputs import find_files
from dataprep.stages.read.rows import read_rows
from schemas.errors import InputError

ENDINGS = ".jsonl, .json, .csv, .tsv, .txt, .parquet or .arrow"


def rows_of(path: Path) -> list[tuple]:
    """Read all rows; one that was turned away shows as (number, reason, detail)."""
    [file] = find_files([str(path)], leave_out=Path("cache/conversations"))
    rows = [row for segment in cut(file, sha256()) for row in read_rows(segment)]
    return [
        (number, value.reason, value.detail) if isinstance(value, TurnedAway) else (number, value)
        for number, value, _ in rows
    ]


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_lines_are_rows_and_blank_lines_only_count_as_lines(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"a": 1}\n\n  \r\n{"a": 2}\r\n{"a": 3}')
    assert rows_of(path) == [(1, {"a": 1}), (4, {"a": 2}), (5, {"a": 3})]


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    assert rows_of(written(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"a": 1}\n')) == [(1, {"a": 1})]
    assert rows_of(written(tmp_path / "a.json", b'\xef\xbb\xbf[{"a": 1}]')) == [(1, {"a": 1})]
    assert rows_of(written(tmp_path / "b.jsonl", b'{"a": 1}\n\xef\xbb\xbf{"a": 2}\n'))[1] == (2, {"a": 2})


def test_a_broken_line_costs_that_row_only(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"a": 1}\n{"a": \n{"a": 3}\n')
    assert rows_of(path) == [
        (1, {"a": 1}),
        (2, "broken-json", "not JSON: Expecting value at column 7"),
        (3, {"a": 3}),
    ]


def test_a_line_in_another_encoding_costs_that_row_only(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"a": "中"}\n'.encode("gbk") + b'{"a": 2}\n')
    assert rows_of(path) == [(1, "bad-encoding", "byte 0xd6 at position 8 is not UTF-8"), (2, {"a": 2})]


def test_a_file_cut_in_the_middle_of_a_character_is_broken_and_not_misencoded(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"a": "中'.encode()[:-1])
    assert rows_of(path) == [(1, "broken-json", "not JSON: the text ends in the middle of a character")]


def test_lone_surrogates_are_turned_away_and_pairs_are_characters(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"a": "x\\ud83dy"}\n{"a": "\\ud83d\\ude00"}\n')
    assert rows_of(path) == [
        (1, "lone-surrogate", "the text holds half of a surrogate pair, \\ud83d"),
        (2, {"a": "😀"}),
    ]


def test_nesting_without_end_is_turned_away(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b"[" * 100_000 + b"]" * 100_000 + b"\n[]\n")
    assert rows_of(path) == [(1, "too-deep", "values are nested about 1,000 deep or more"), (2, [])]


def test_nan_in_a_row_does_no_harm(tmp_path: Path) -> None:
    [(_, row)] = rows_of(written(tmp_path / "a.jsonl", b'{"text": "x", "score": NaN, "loss": 1e999}\n'))
    assert row["text"] == "x"


def test_whole_numbers_of_tools_stay_whole(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", b'{"tools": [{"id": 123456789012345678901234567890, "x": 1.0}]}\n')
    assert rows_of(path) == [(1, {"tools": [{"id": 123456789012345678901234567890, "x": 1.0}]})]


def test_json_may_be_an_array_or_one_object_or_lines(tmp_path: Path) -> None:
    assert rows_of(written(tmp_path / "a.json", b'[\n{"a": 1},\n{"a": 2}\n]')) == [(1, {"a": 1}), (2, {"a": 2})]
    assert rows_of(written(tmp_path / "b.json", b'{\n"a": 1\n}\n')) == [(1, {"a": 1})]
    assert rows_of(written(tmp_path / "c.json", b'{"a": 1}\n{"a": 2}\n')) == [(1, {"a": 1}), (2, {"a": 2})]
    assert rows_of(written(tmp_path / "d.json", b'{"a": \n{"a": 2}\n')) == [
        (1, "broken-json", "not JSON: Expecting value at column 7"),
        (2, {"a": 2}),
    ]


def test_an_array_of_messages_is_one_row(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", b'[{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]')
    assert rows_of(path) == [(1, [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}])]


def test_a_broken_value_of_an_array_costs_itself_and_tells_where_it_is(tmp_path: Path) -> None:
    path = written(tmp_path / "a.json", b'[\n{"a": 1},\n{"a": 2,}\n]')
    [first, (number, reason, detail)] = rows_of(path)
    assert first == (1, {"a": 1})
    assert (number, reason) == (2, "broken-json")
    assert detail.endswith("; the row begins at line 3, byte 13")


def test_parquet_rows_count_from_one_over_all_row_groups(tmp_path: Path) -> None:
    table = pa.table({"text": [f"page {number}" for number in range(5)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=2)
    assert rows_of(tmp_path / "a.parquet") == [(number + 1, {"text": f"page {number}"}) for number in range(5)]


def test_columns_of_parquet_that_nobody_reads_do_no_harm(tmp_path: Path) -> None:
    never = pa.array([2**62, 0], pa.timestamp("us"))  # the year 148,000: Python has no such date
    pq.write_table(pa.table({"when": never, "text": ["one", "two"]}), tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == [(1, {"text": "one"}), (2, {"text": "two"})]


def test_text_in_parquet_that_is_not_utf_8_costs_that_row_only(tmp_path: Path) -> None:
    binary = pa.array([b"good", b"\xd6\xd0", b"fine"], pa.binary())
    pq.write_table(pa.table({"text": binary.cast(pa.string(), safe=False)}), tmp_path / "a.parquet")
    assert rows_of(tmp_path / "a.parquet") == [
        (1, {"text": "good"}),
        (2, "bad-encoding", "byte 0xd6 at position 1 is not UTF-8"),
        (3, {"text": "fine"}),
    ]


def test_a_damaged_row_group_costs_its_rows_and_each_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": [os.urandom(50).hex() for _ in range(4)]})
    pq.write_table(table, path, row_group_size=2, compression="zstd", use_dictionary=False)
    data = bytearray(path.read_bytes())
    data[30:150] = bytes(120)
    path.write_bytes(data)
    rows = rows_of(path)
    assert [row[:2] for row in rows[:2]] == [(1, "unreadable-rows"), (2, "unreadable-rows")]
    assert rows[2:] == [(3, {"text": table["text"][2].as_py()}), (4, {"text": table["text"][3].as_py()})]


def test_lines_are_cut_at_their_ends_and_keep_their_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "READ_BYTES", 7)
    monkeypatch.setattr(cutting, "SEGMENT_BYTES", 20)
    content = b"".join(b"[%d]\n" % number * (1 + number % 3) for number in range(50)) + b"[99]"
    path = written(tmp_path / "a.jsonl", content)
    [file] = find_files([str(path)], leave_out=tmp_path / "out")
    digest = sha256()
    segments = list(cut(file, digest))
    assert len(segments) > 10
    assert digest.hexdigest() == sha256(content).hexdigest()
    lines = content.decode().split("\n")
    read = [row for segment in segments for row in read_rows(segment)]
    assert [(number, raw) for number, _, raw in read] == [(n, line.encode()) for n, line in enumerate(lines, 1)]


def test_folders_are_searched_in_order_and_hidden_files_and_the_output_are_not_input(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a/z.json", "a/.hidden.jsonl", ".git/x.json", "notes.txt", "cache/conversations/q.jsonl"):
        written(tmp_path / name, b"")
    found = find_files([str(tmp_path)], leave_out=tmp_path / "cache/conversations")
    assert [file.name for file in found] == [f"{tmp_path.as_posix()}/{name}" for name in ("b.jsonl", "a/z.json")]
    assert [file.source for file in found] == ["b", "z"]


def test_globs_are_sorted_and_a_file_named_twice_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b.jsonl", "a.v1.jsonl", "c.txt"):
        written(tmp_path / name, b"")
    found = find_files(["b.jsonl", "*", "./b.jsonl"], leave_out=tmp_path / "out")
    assert [(file.name, file.source) for file in found] == [("b.jsonl", "b"), ("a.v1.jsonl", "a.v1")]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("none.jsonl", "none.jsonl: no such file or folder; check the path"),
        ("*.parquet", f"*.parquet: no {ENDINGS} file matches; check the pattern"),
        (
            "empty",
            f"empty: no {ENDINGS} file in this folder; name a folder or file that holds rows, and .txt"
            " files as 'empty/*.txt'",
        ),
        (
            "a.doc",
            f"a.doc: cannot tell the kind of file by its ending; rename it to end in {ENDINGS}",
        ),
        ("gone.jsonl", "gone.jsonl: cannot be read: No such file or directory"),
        ("pipe.jsonl", "pipe.jsonl: not a regular file; write the rows to a file, or give them"),
    ],
)
def test_inputs_that_cannot_be_used_say_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    written(tmp_path / "a.doc", b"x")
    (tmp_path / "gone.jsonl").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.jsonl")
    with pytest.raises(InputError) as caught:
        find_files([given], leave_out=tmp_path / "out")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    path = written(tmp_path / "a.parquet", b"PAR1 not really")
    with pytest.raises(InputError, match=r"a.parquet: not a readable Parquet file: .*; write or download it again"):
        rows_of(path)
