"""What can be named as input: sources, files without endings."""

import bz2
import gzip
import json
import lzma
import os
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.stages.read.cut import cut
from dataprep.stages.read.inputs import find_files
from dataprep.stages.read.rows import read_rows
from schemas.errors import InputError

TWO = b'{"text": "one"}\n{"text": "two"}\n'


def sources(*given: str) -> list[tuple[str, str]]:
    return [(file.name, file.source) for file in find_files(list(given), leave_out=Path("cache"))]


def touched(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(TWO)


def test_a_name_before_an_equals_sign_is_the_source_of_all_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    touched("data/a.jsonl", "data/b.jsonl", "x=y.jsonl", "n=1/z.jsonl")
    assert sources("smile=data/*.jsonl") == [("data/a.jsonl", "smile"), ("data/b.jsonl", "smile")]
    assert sources("smile=data", "other=x=y.jsonl")[1:] == [("data/b.jsonl", "smile"), ("x=y.jsonl", "other")]
    assert sources("x=y.jsonl", "n=1/z.jsonl", "n=1/*.jsonl") == [("x=y.jsonl", "x=y"), ("n=1/z.jsonl", "z")]
    with pytest.raises(InputError, match=r"^none.jsonl: no such file or folder"):
        sources("smile=none.jsonl")
    with pytest.raises(InputError, match=r" =a.jsonl: no name before the '='; write NAME=PATH or ./ =a.jsonl"):
        sources(" =a.jsonl")


def test_files_of_the_same_name_in_different_folders_have_sources_that_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    touched("a/chats.jsonl", "b/chats.jsonl", "b/other.jsonl", "p/q/chats.jsonl", "s/q/chats.jsonl", "a/chats.json")
    assert dict(sources("a", "b/chats.jsonl", "b/other.jsonl", "p", "s")) == {
        "a/chats.json": "a/chats",
        "a/chats.jsonl": "a/chats",
        "b/chats.jsonl": "b/chats",
        "b/other.jsonl": "other",
        "p/q/chats.jsonl": "p/q/chats",
        "s/q/chats.jsonl": "s/q/chats",
    }
    assert sources("a/chats.json", "a/chats.jsonl") == [("a/chats.json", "chats"), ("a/chats.jsonl", "chats")]
    assert sources("x=a/chats.json", "b/chats.jsonl") == [("a/chats.json", "x"), ("b/chats.jsonl", "chats")]


def test_the_splits_of_two_saved_datasets_are_told_apart(tmp_path: Path) -> None:
    for name in ("one", "two"):
        folder = tmp_path / name / "train"
        folder.mkdir(parents=True)
        with pa.ipc.new_stream(str(folder / "d.arrow"), pa.schema({"text": pa.string()})) as writer:
            writer.write_table(pa.table({"text": ["x"]}))
        (folder / "state.json").write_text('{"_data_files": [{"filename": "d.arrow"}]}')
        (folder / "dataset_info.json").write_text("{}")
    assert [source for _, source in sources(str(tmp_path))] == ["one/train", "two/train"]
    assert [source for _, source in sources(str(tmp_path / "one"))] == ["train"]


def parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return sink.getvalue().to_pybytes()


def arrow(table: pa.Table, opened: object) -> bytes:
    sink = pa.BufferOutputStream()
    with opened(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue().to_pybytes()


TABLE = pa.table({"text": ["one", "two"]})
PRETTY = json.dumps([{"text": "one"}, {"text": "two"}], indent=2).encode()


@pytest.mark.parametrize(
    "content",
    [
        TWO,
        PRETTY,
        gzip.compress(TWO, mtime=0),
        bz2.compress(PRETTY),
        lzma.compress(TWO),
        pa.compress(TWO, codec="zstd", asbytes=True),
        b"\xef\xbb\xbf" + TWO,
        b"\xff\xfe" + TWO.decode().encode("utf-16-le"),
        parquet(TABLE),
        arrow(TABLE, pa.ipc.new_file),
        arrow(TABLE, pa.ipc.new_stream),
    ],
)
@pytest.mark.parametrize("name", ["data", "chats.log"])
def test_a_named_file_without_one_of_our_endings_is_known_by_its_content(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    [file] = find_files([str(tmp_path / name)], leave_out=tmp_path)
    rows = [row[:2] for segment in cut(file, sha256()) for row in read_rows(segment)]
    assert rows == [(1, {"text": "one"}), (2, {"text": "two"})]
    assert file.source == name.removesuffix(".log")


@pytest.mark.parametrize("content", [b"", b"words", b"[unknown] error\n", b"{x", b"\x1f\x8bbroken", b"42\n", b"PK\x05"])
def test_other_content_is_refused_as_before(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.log").write_bytes(content)
    with pytest.raises(InputError, match=r"a.log: cannot tell the kind of file by its ending; rename it to end in"):
        find_files([str(tmp_path / "a.log")], leave_out=tmp_path)


def test_files_in_folders_are_known_by_their_endings_only(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(TWO)
    with pytest.raises(InputError, match="file in this folder; name a folder or file that holds rows"):
        find_files([str(tmp_path)], leave_out=tmp_path / "out")


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_a_folder_that_cannot_be_read_is_an_error_and_not_passed_over(tmp_path):
    (tmp_path / "a.jsonl").write_text("{}\n", encoding="utf-8")
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(InputError, match="closed: cannot be read: Permission denied; make it readable, or name the"):
        find_files([str(tmp_path)], leave_out=tmp_path / "out")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "INPUT: an empty name; is a variable of the shell not set?"),
        ("\udcff=a.jsonl", "\udcff=a.jsonl: no name before the '='; write NAME=PATH or ./"),
        ("\udcff.parquet", "\ufffd.parquet: Arrow opens no file whose name or folder is not UTF-8; rename it"),
    ],
)
def test_inputs_that_are_none_say_so(tmp_path, monkeypatch, given, message):
    monkeypatch.chdir(tmp_path)
    for name in ("a.jsonl", "\udcff.parquet"):
        (tmp_path / name).write_text("{}\n", encoding="utf-8")
    with pytest.raises(InputError) as caught:
        find_files([given], leave_out=tmp_path / "out")
    assert str(caught.value).startswith(message)
