"""Small conversations for the tests of tokenizing and packing, as records of conversations/."""

import hashlib
import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from schemas.conversation import CONVERSATION

Turn = tuple[str, str] | dict[str, Any]


def record(*turns: Turn, tools: list[dict[str, Any]] | None = None, source: str = "tests") -> dict[str, Any]:
    """A conversation of these turns: (role, content), or a message with more fields."""
    messages = [_message(turn) for turn in turns]
    text = json.dumps([messages, tools])
    return {
        "id": hashlib.blake2b(text.encode(), digest_size=16).hexdigest(),
        "source": source,
        "origin": {"file": "tests.jsonl", "row": 1},
        "messages": messages,
        "tools": None if tools is None else json.dumps(tools),
    }


def _message(turn: Turn) -> dict[str, Any]:
    given = {"role": turn[0], "content": turn[1]} if isinstance(turn, tuple) else turn
    blank = dict.fromkeys(("reasoning", "tool_calls", "name", "tool_call_id", "train"))
    return {"content": "", **blank, **given}


def table(*records: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(records), schema=CONVERSATION)


def write_jsonl(path: Path, dialogues: list[list[tuple[str, str]]]) -> Path:
    """Raw rows in OpenAI's format, for tests that go the whole way."""
    rows = [{"messages": [{"role": role, "content": content} for role, content in turns]} for turns in dialogues]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def many_dialogues(count: int) -> list[list[tuple[str, str]]]:
    """Different dialogues of one to four exchanges, Chinese and English."""
    dialogues = []
    for number in range(count):
        turns = [("system", f"Answer number {number}.")] if number % 5 == 0 else []
        for exchange in range(1 + number % 4):
            turns.append(("user", f"Question {exchange} of {number}: 怎么种番茄？"))
            turns.append(
                ("assistant", f"Answer {exchange}: water it {number * 7 % 11} times. 多浇水。" * (1 + number % 3))
            )
        dialogues.append(turns)
    return dialogues
