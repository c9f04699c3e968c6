"""Rows that are turns, each with its dialogue's id, as databases and tables of utterances have them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.cli import main
from dataprep.stages.normalize.formats.turn_rows import dialogues_of_rows, holds_turn_rows
from dataprep.stages.normalize.message import ROLE_NAMES

HELLO = [("user", "Hello"), ("assistant", "Hi")]


def turn(dialogue: object, role: str, text: object, **more: object) -> dict:
    return {"conversation_id": dialogue, "role": role, "content": text, **more}


def grouped(*rows: object) -> list[tuple[int, object, int]]:
    """Row number, the texts of the dialogue there or the row as it is, and how many rows are in it."""
    found = []
    for number, row, size in dialogues_of_rows(enumerate(rows, 1)):
        is_dialogue = isinstance(row, dict) and "messages" in row
        found.append((number, [each["content"] for each in row["messages"]] if is_dialogue else row, size))
    return found


def normalized(folder: Path, file: str, *flags: str) -> list[list[tuple[str, str]]]:
    assert main(["normalize", str(folder / file), "--out", str(folder / "cache"), *flags]) == 0
    [part] = (folder / "cache" / "conversations").glob("part-*.parquet")
    table = pq.read_table(part, columns=["messages"])
    return [[(each["role"], each["content"]) for each in row] for row in table["messages"].to_pylist()]


def test_turns_of_one_dialogue_are_joined_wherever_they_stand() -> None:
    rows = [turn(1, "user", "a"), turn(2, "user", "c"), turn(1, "assistant", "b"), turn(2, "assistant", "d")]
    assert grouped(*rows) == [(1, ["a", "b"], 2), (2, ["c", "d"], 2)]


@pytest.mark.parametrize(
    ("key", "places"),
    [
        ("turn", [2, 0, 1]),
        ("turn_id", ["10", "2", "9"]),
        ("Message_Index", [3.0, 1.0, 2.0]),
        ("created_at", ["2024-05-01T10:00:02", "2024-05-01T10:00:00", "2024-05-01T10:00:01"]),
        ("timestamp", [1714557602, 1714557600, 1714557601]),
    ],
)
def test_turns_stand_in_the_order_of_their_numbers_or_times(key: str, places: list[object]) -> None:
    texts = zip(["third", "first", "second"], places, strict=True)
    assert grouped(*[turn("x", "user", text, **{key: place}) for text, place in texts]) == [
        (1, ["first", "second", "third"], 3)
    ]


@pytest.mark.parametrize("places", [[1, 1, 2], [1, None, 0], ["b", "c", "a"]])
def test_without_a_number_of_its_own_for_each_the_order_is_that_of_the_file(places: list[object]) -> None:
    rows = [turn("x", "user", text, turn=place) for text, place in zip("abc", places, strict=True)]
    assert grouped(*rows) == [(1, ["a", "b", "c"], 3)]


def test_what_is_no_turn_comes_out_as_it_is_and_in_its_place() -> None:
    lost, page = turn(None, "user", "Hello?"), {"text": "A page."}
    rows = [lost, turn(7, "user", "a"), page, turn(7, "assistant", "b")]
    assert grouped(*rows) == [(1, lost, 1), (2, ["a", "b"], 2), (3, page, 1)]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (turn(1, "user", "Hello"), True),
        ({"Dialogue_ID": "7_1", "Speaker": "Client", "Utterance": "Hello"}, True),
        ({"chatId": 5, "sender": "bot", "message": "Hello"}, True),
        ({"会话": 1, "角色": "用户", "内容": "你好"}, False),
        ({"thread_id": 3, "author": "bob42", "text": "A post."}, False),
        ({"conversation_id": 1, "messages": [{"role": "user", "content": "Hello"}]}, False),
        ({"conversation_id": 1, "question": "Hello", "answer": "Hi"}, False),
        (["Hello"], False),
    ],
)
def test_only_a_row_with_an_id_a_known_speaker_and_a_text_is_a_turn(row: object, expected: bool) -> None:
    assert holds_turn_rows(row, ROLE_NAMES) is expected


def test_a_table_of_turns_becomes_conversations_and_each_row_is_counted(tmp_path: Path, capsys) -> None:
    lines = [
        "conversation_id,turn,role,content",
        "1,0,user,Hello",
        "2,1,assistant,Hi",
        "2,0,user,Hello",
        "1,1,assistant,Yes?",
    ]
    (tmp_path / "turns.csv").write_text("\n".join(lines), encoding="utf-8")
    assert normalized(tmp_path, "turns.csv") == [[("user", "Hello"), ("assistant", "Yes?")], HELLO]
    assert "joined       2  rows that are part of another's conversation" in capsys.readouterr().out


def test_columns_of_parquet_by_other_names_are_read(tmp_path: Path) -> None:
    columns = {"DialogId": [1.0, 1.0], "Speaker": ["Client", "Therapist"], "Utterance": ["Hello", "Hi"], "Turn": [1, 2]}
    pq.write_table(pa.table(columns), tmp_path / "turns.parquet")
    assert normalized(tmp_path, "turns.parquet") == [HELLO]


def test_what_each_turn_repeats_of_its_dialogue_is_taken_once(tmp_path: Path) -> None:
    rows = [turn(1, "user", "Hello", system="Be kind."), turn(1, "assistant", "Hi", system="Be kind.")]
    (tmp_path / "turns.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert normalized(tmp_path, "turns.jsonl") == [[("system", "Be kind."), *HELLO]]


def test_calls_stay_with_their_turns(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    rows = [
        turn(1, "user", "Time?"),
        turn(1, "assistant", None, tool_calls=[call]),
        turn(1, "tool", "Noon", tool_call_id="1"),
        turn(1, "assistant", "Noon."),
    ]
    (tmp_path / "turns.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    [messages] = normalized(tmp_path, "turns.jsonl")
    assert [role for role, _ in messages] == ["user", "assistant", "tool", "assistant"]


def test_a_speaker_whom_the_user_names_makes_a_turn(tmp_path: Path) -> None:
    rows = [turn(1, "shopper", "Hello"), turn(1, "clerk", "Hi")]
    (tmp_path / "turns.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    assert normalized(tmp_path, "turns.jsonl", "--role", "shopper=user", "--role", "clerk=assistant") == [HELLO]
