"""Reading .json: arrays, values one after another, lists of rows in an object; whole, broken and large."""

import json
import random
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataprep.normalize.run import normalize_corpus
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.read import cut as cutting
from dataprep.stages.read import elements, json_files
from dataprep.stages.read.boundaries import Scanner
from dataprep.stages.read.cut import cut
from dataprep.stages.read.inputs import find_files
from dataprep.stages.read.rows import read_rows
from schemas.errors import InputError
from schemas.files import sha256_file

SAID = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]


def rows_of(path: Path) -> list[tuple]:
    """Read all rows as (split, number, value); one that was turned away shows its reason as value."""
    digest = sha256()
    [file] = find_files([str(path)], leave_out=Path("cache"))
    rows = [(segment, row) for segment in cut(file, digest) for row in read_rows(segment)]
    assert digest.hexdigest() == sha256_file(path)
    return [
        (segment.file.name.partition("#")[2], number, value.reason if isinstance(value, TurnedAway) else value)
        for segment, (number, value, _) in rows
    ]


def read(tmp_path: Path, content: object, name: str = "a.json") -> list[tuple]:
    data = content if isinstance(content, bytes) else json.dumps(content).encode()
    (tmp_path / name).write_bytes(data)
    return rows_of(tmp_path / name)


def test_objects_one_after_another_are_rows_whatever_stands_between_them(tmp_path: Path) -> None:
    expected = [("", 1, {"a": "}{"}), ("", 2, {"b": 2}), ("", 3, {"c": []})]
    for between in (b"", b" ", b"\n\n", b",\n", b"\r\n\t"):
        first, second, third = b'{"a":\n "}{"}', b'{\n  "b": 2\n}', b'{"c": []}'
        assert read(tmp_path, between.join([first, second, third])) == expected


def test_an_object_of_splits_gives_rows_under_the_name_of_each(tmp_path: Path) -> None:
    splits = {"info": "rows, of 2 splits", "train": [{"text": "a"}, {"text": "b"}], "n": 3, "test": [{"text": "c"}]}
    expected = [("train", 1, {"text": "a"}), ("train", 2, {"text": "b"}), ("test", 1, {"text": "c"})]
    assert read(tmp_path, splits) == read(tmp_path, json.dumps(splits, indent=2).encode()) == expected
    manifest = normalize_corpus([str(tmp_path / "a.json")], tmp_path, workers=1)
    assert manifest.sources == {"a": 3}


def test_the_rows_of_the_hub_s_viewer_are_taken_out_of_their_wrapping(tmp_path: Path) -> None:
    seen = {
        "features": [{"feature_idx": 0, "name": "text", "type": {"dtype": "string"}}],
        "rows": [{"row_idx": 0, "row": {"text": "a"}, "truncated_cells": []}, {"row_idx": 1, "row": {"text": "b"}}],
        "num_rows_total": 2,
    }
    assert read(tmp_path, seen) == [("rows", 1, {"text": "a"}), ("rows", 2, {"text": "b"})]


@pytest.mark.parametrize(
    ("key", "rows"),
    [
        ("data", [{"instruction": "Say hi.", "input": "", "output": "Hi"}] * 2),
        ("data", [{"question": "Who?", "answer": "I."}] * 2),
        ("examples", [{"messages": SAID}] * 2),
        ("conversations", [{"id": 1, "conversations": SAID}] * 2),
        ("items", [SAID] * 2),
    ],
)
def test_a_wrapped_list_of_rows_is_read(tmp_path: Path, key: str, rows: list) -> None:
    assert read(tmp_path, {"version": 1, key: rows}) == [(key, 1, rows[0]), (key, 2, rows[1])]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": SAID},
        {"id": "x", "tags": [{"label": 1}], "messages": SAID},
        {"tools": [{"name": "f"}], "conversations": [{"from": "human", "value": "Hi"}]},
        {"data": SAID},
        {"data": ["Hi", "Hello."]},
        {"conversation": [{"human": "Hi", "assistant": "Hello."}]},
        {"chosen": SAID, "rejected": SAID},
        {"text": "A page."},
        {"unknown": [{"x": 1}, {"x": 2}]},
        {"value": [{"x": 1}, {"x": 2}]},
    ],
)
def test_an_object_that_is_a_row_stays_one(tmp_path: Path, row: dict) -> None:
    assert read(tmp_path, row) == read(tmp_path, json.dumps(row, indent=1).encode()) == [("", 1, row)]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "user", "content": "Hi"},
        {"from": "human", "value": "Hi"},
        {"speaker": "A", "text": "Hi"},
        {"author": "A", "utterance": "Hi"},
        {"speaker": "A", "message": "Hi"},
    ],
)
def test_an_array_of_messages_is_one_row_and_an_array_of_such_arrays_is_many(tmp_path: Path, message: dict) -> None:
    assert read(tmp_path, [message, message]) == [("", 1, [message, message])]
    assert read(tmp_path, [[message], [message]]) == [("", 1, [message]), ("", 2, [message])]


def test_json_and_lines_are_told_apart_by_what_is_there(tmp_path: Path) -> None:
    rows = [{"text": "a"}, {"text": "b"}]
    expected = [("", 1, rows[0]), ("", 2, rows[1])]
    for name in ("a.jsonl", "a.ndjson", "a.jsonlines", "a.json"):
        assert read(tmp_path, rows, name) == expected
        assert read(tmp_path, json.dumps(rows, indent=1).encode(), name) == expected
        assert read(tmp_path, b'{\n"text": "a"\n}\n{\n"text": "b"\n}', name) == expected
        assert read(tmp_path, b'{"text": "a"}\n{"text": "b"}\n', name) == expected
        assert read(tmp_path, b'{"text": "a"},\n{"text": "b"}\n', name) == expected
    assert read(tmp_path, SAID, "a.jsonl") == [("", 1, SAID)]
    assert read(tmp_path, ["Hi", "Hello."], "a.jsonl") == [("", 1, ["Hi", "Hello."])]
    assert read(tmp_path, b'[{"a": 1}, {"a"\n{"a": 2}\n', "a.jsonl") == [("", 1, "broken-json"), ("", 2, {"a": 2})]


def test_a_truncated_array_keeps_its_whole_values_and_turns_the_last_away(tmp_path: Path) -> None:
    whole = json.dumps([{"id": 1, "text": "a"}, {"id": 2, "text": "b"}, {"id": 3, "text": "c"}]).encode()
    expected = [("", 1, {"id": 1, "text": "a"}), ("", 2, {"id": 2, "text": "b"})]
    assert read(tmp_path, whole[:-1])[:2] == expected
    assert len(read(tmp_path, whole[:-1])) == 3
    for end in range(whole.index(b"3"), len(whole) - 2):
        assert read(tmp_path, whole[:end]) == [*expected, ("", 3, "broken-json")]


@pytest.mark.parametrize(
    "broken",
    [
        '{"id": 7, "text": "said "no"}',
        '{"id": 7, "text": "two\nlines"}',
        '{"id": 7, "text": ["x"}',
        '{"id": 7, "text": "x"',
        '{"id": 7, "text": x}',
        '{"id": 7,, "text": "x"}',
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_a_broken_value_costs_its_own_row_even_where_it_hides_its_end(
    tmp_path: Path, broken: str, indent: int | None
) -> None:
    rows = [{"id": number, "text": f"page {number}, all of it"} for number in range(20)]
    dumped = [json.dumps(row, indent=indent) for row in rows]
    between = ", " if indent is None else ",\n"
    for place in (0, 7, 19):
        content = between.join([*dumped[:place], broken, *dumped[place + 1 :]])
        kept = [value for _, _, value in read(tmp_path, f"[{between[1:]}{content}]".encode()) if value != "broken-json"]
        assert kept == [row for row in rows if row["id"] != place]


def test_broken_values_far_apart_cost_their_own_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "SEGMENT_BYTES", 1000)
    monkeypatch.setattr(elements, "LONGEST_WHOLE", 4000)
    monkeypatch.setattr(elements, "_SCAN_BYTES", 100)
    dumped = [json.dumps({"id": number, "text": "x, " * (number % 9)}) for number in range(400)]
    dumped[50] = dumped[200] = dumped[201] = '{"id": 0, "text": "a quote " too many"}'
    rows = read(tmp_path, ("[" + ",\n".join(dumped) + "]").encode())
    assert [number for _, number, value in rows if value == "broken-json"] == [51, 201, 202]
    assert [number for _, number, _ in rows] == list(range(1, 401))


def test_values_that_hold_others_of_their_kind_are_not_taken_apart(tmp_path: Path) -> None:
    tree = {"id": 1, "replies": [{"id": 2, "replies": []}, {"id": 3, "replies": [{"id": 4}, {"id": 5}]}]}
    assert read(tmp_path, [tree] * 3) == [("", number, tree) for number in (1, 2, 3)]
    cut_short = json.dumps([tree, tree]).encode()[:-5]
    assert read(tmp_path, cut_short) == [("", 1, tree), ("", 2, "broken-json")]


def test_numbers_and_nan_are_read_as_in_lines(tmp_path: Path) -> None:
    tools = b'{"tools": [{"id": 123456789012345678901234567890, "x": 1.0}]}'
    exact = {"tools": [{"id": 123456789012345678901234567890, "x": 1.0}]}
    assert read(tmp_path, b"[" + tools + b', {"text": "a"}]') == [("", 1, exact), ("", 2, {"text": "a"})]
    [(_, _, first), second] = read(tmp_path, b'[{"text": "x", "loss": NaN}, {"text": "y"}]')
    assert (first["text"], second) == ("x", ("", 2, {"text": "y"}))


def test_a_row_that_is_not_json_says_where_it_begins_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('[\n  {"a": 1},\n\n  {"a": }\n]')
    [file] = find_files([str(tmp_path / "a.json")], leave_out=tmp_path)
    [_, (number, away, raw)] = [row for segment in cut(file, sha256()) for row in read_rows(segment)]
    assert (number, raw) == (2, b'{"a": }')
    assert away.detail == "not JSON: Expecting value at column 7; the row begins at line 4, byte 18"


def test_a_large_object_is_judged_by_its_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_files, "WHOLE_OBJECT_BYTES", 300)
    monkeypatch.setattr(elements, "_SCAN_BYTES", 100)
    rows = [{"text": f"page {number}"} for number in range(100)]
    expected = [("train", number, row) for number, row in enumerate(rows, 1)]
    assert read(tmp_path, {"info": {"by": ["me"]}, "train": rows, "sizes": list(range(99))}) == expected
    assert read(tmp_path, {"sizes": list(range(999)), "train": rows})[:1] == [
        ("", 1, {"sizes": list(range(999)), "train": rows})
    ]
    talk = {"id": 1, "messages": SAID * 50}
    assert read(tmp_path, talk) == [("", 1, talk)]


def test_the_number_of_workers_and_of_segments_does_not_change_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": number, "text": f"page {number}"} for number in range(300)]
    (tmp_path / "a.json").write_text(json.dumps({"train": rows, "test": rows[:9]}, indent=1) + "\n")
    monkeypatch.setattr("dataprep.normalize.share.UNIT_BYTES", 2000)
    monkeypatch.setattr(cutting, "SEGMENT_BYTES", 500)
    manifests = [normalize_corpus([str(tmp_path / "a.json")], tmp_path / str(n), workers=n) for n in (1, 2)]
    assert manifests[0] == manifests[1]
    assert (manifests[0].rows, len(manifests[0].parts) > 5) == (309, True)


def test_a_value_without_end_is_an_error_and_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(elements, "LONGEST_HELD", 5000)
    monkeypatch.setattr(cutting, "READ_BYTES", 1000)
    monkeypatch.setattr(elements, "_SCAN_BYTES", 1000)
    with pytest.raises(
        InputError, match=r"a.json: line 1, byte 4: a value is longer than 1 GiB or has no end; mend it"
    ):
        read(tmp_path, b'[1,\n  "' + b"x" * 20_000)


STRINGS = st.sampled_from(["a, b", "]}", "{[", '"', "\\", '\\"', "中", '},{"id":1', "\n"]) | st.text(max_size=4)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(STRINGS, inner, max_size=3),
    max_leaves=8,
)
ROWS = st.lists(st.fixed_dictionaries({"id": st.integers(0, 9), "value": VALUES}), min_size=1, max_size=8)
SMALL = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)


@SMALL
@given(ROWS, st.sampled_from([None, 1]), st.booleans(), st.sampled_from(["array", "splits", "values"]), st.randoms())
def test_rows_come_back_however_the_file_is_written_and_cut(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list,
    indent: int | None,
    plain: bool,
    shape: str,
    chance: random.Random,
) -> None:
    def text(value: object) -> str:
        return json.dumps(value, indent=indent, ensure_ascii=plain)

    content = {"array": text(rows), "splits": text({"n": 1, "train": rows}), "values": " ".join(map(text, rows))}[shape]
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(content, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "READ_BYTES", chance.choice([3, 20, 1 << 20]))
        patch.setattr(cutting, "SEGMENT_BYTES", chance.choice([1, 30, 1 << 20]))
        patch.setattr(elements, "_SCAN_BYTES", chance.choice([2, 9, 1 << 20]))
        found = rows_of(path)
    assert found == [("train" if shape == "splits" else "", number, row) for number, row in enumerate(rows, 1)]


@SMALL
@given(ROWS, st.data())
def test_damage_never_stops_the_reading_or_gives_a_number_twice(
    tmp_path_factory: pytest.TempPathFactory, rows: list, data: st.DataObject
) -> None:
    content = bytearray(json.dumps(data.draw(st.sampled_from([rows, {"train": rows, "test": rows}]))).encode())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 3))] = data.draw(
            st.sampled_from(list(b'"{}[],\\\n\xff')).map(lambda byte: bytes([byte])) | st.just(b"")
        )
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_bytes(content)
    numbers = [(split, number) for split, number, _ in rows_of(path)]
    assert len(set(numbers)) == len(numbers)


@given(st.binary(max_size=200), st.integers(1, 50))
def test_boundaries_do_not_depend_on_where_the_text_is_divided(data: bytes, size: int) -> None:
    whole = Scanner().cuts(data)
    scanner = Scanner()
    ends = [
        begin + end
        for begin in range(0, len(data), size)
        for end in scanner.cuts(data[begin : begin + size]).ends.tolist()
    ]
    assert ends == whole.ends.tolist()
