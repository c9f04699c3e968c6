"""Equal conversations: the first copy is kept, the others are turned away and name it."""

import json
from pathlib import Path

import numpy as np
import orjson
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from dataprep.normalize import share
from dataprep.normalize.choices import Choices
from dataprep.normalize.run import normalize_corpus
from dataprep.stages.duplicates import SeenConversations


def dialogue(question: str) -> dict:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "Yes"}]}


def written(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_each_key_is_given_the_number_of_its_first_copy() -> None:
    seen = SeenConversations()
    assert seen.first_of(np.array([7, 5, 7, 9], dtype=np.uint64)).tolist() == [-1, -1, 0, -1]
    assert seen.first_of(np.array([1, 9, 1, 5], dtype=np.uint64)).tolist() == [-1, 3, 4, 1]


@given(st.lists(st.lists(st.integers(0, 20))))
def test_batches_make_no_difference(batches: list[list[int]]) -> None:
    at_once, by_batch = SeenConversations(), SeenConversations()
    keys = [np.array(batch, dtype=np.uint64) for batch in batches]
    whole = np.concatenate([np.empty(0, dtype=np.uint64), *keys])
    parts = [by_batch.first_of(batch).tolist() for batch in keys]
    assert at_once.first_of(whole).tolist() == [number for part in parts for number in part]


def test_a_copy_is_turned_away_whatever_its_format_its_file_and_its_unit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(share, "UNIT_ROWS", 2)
    a = written(tmp_path / "a.jsonl", dialogue("One?"), dialogue("Two?"), dialogue("One?"))
    b = written(tmp_path / "b.jsonl", {"instruction": "Two?", "input": "", "output": "Yes"}, dialogue("Three?"))
    manifest = normalize_corpus([a, b], tmp_path / "cache")
    assert (manifest.rows, manifest.kept, manifest.turned_away) == (5, 3, {"duplicate": 2})
    assert manifest.formats == {"openai": 3}
    assert manifest.sources == {"a": 2, "b": 1}
    folder = tmp_path / "cache" / "conversations"
    lines = [orjson.loads(line) for line in (folder / manifest.quarantine.file).read_bytes().splitlines()]
    found = [(line["file"], line["row"], line["source"], line["detail"]) for line in lines]
    assert found == [
        (a, 3, "a", f"the same conversation as {a}:1"),
        (b, 1, "b", f"the same conversation as {a}:2"),
    ]
    assert json.loads(lines[1]["raw"])["messages"][0]["content"] == "Two?"
    stored = [row for part in manifest.parts for row in pq.read_table(folder / part.file).to_pylist()]
    assert [row["messages"][0]["content"] for row in stored] == ["One?", "Two?", "Three?"]


def test_copies_are_kept_where_that_is_asked_for(tmp_path: Path) -> None:
    a = written(tmp_path / "a.jsonl", dialogue("One?"), dialogue("One?"))
    assert normalize_corpus([a], tmp_path, choices=Choices(clean=["duplicates=off"])).kept == 2
