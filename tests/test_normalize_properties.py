"""Properties: what is written in a format comes back, and nothing that is fed in can break the ledger."""

import json
import tempfile
from pathlib import Path

from hypothesis import example, given, settings
from hypothesis import strategies as st
from rows import convert

from dataprep.normalize.run import normalize_corpus
from dataprep.stages.normalize.convert import FORMATS, role_names
from dataprep.stages.normalize.message import as_json, identify
from dataprep.stages.normalize.reasons import FIXES, TurnedAway

# Texts without marks of speakers, reasoning or calls: those have tests of their own.
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0<[:："), max_size=20)
ANSWER = TEXT.filter(lambda text: text.strip() != "")
PAIRS = st.lists(st.tuples(TEXT, ANSWER), min_size=1, max_size=4)
WORDS = ["messages", "conversations", "conversation", "role", "content", "from", "value", "user", "assistant", "human"]
WORDS += ["gpt", "tool_calls", "function", "name", "arguments", "instruction", "input", "output", "history", "prompt"]
WORDS += [
    "response",
    "chosen",
    "\n\nHuman: a\n\nAssistant: b",
    "text",
    "tools",
    "[{}]",
    "function_call",
    "weight",
    "id",
]
WORDS += [*("speaker", "author", "utterance", "message", "dialog", "turns", "data")]
WORDS += [*("question", "answer", "completion", "context", "title", "ask", "prompter", "replies", "rank")]
WORDS += [
    *("mapping", "parent", "parts", "thinking", "reasoning", "answers", "images", "type", "tool_use", "tool_result")
]
WORDS += [
    *("sender", "log", "is_human", "type", "user_1", "bot_1", "message_1", "1", "2", "问：a", "speakers", "children")
]
WORDS += ["<think>", "</think>", "<tool_call>", '<tool_call>{"name": "a"', "<tool_response>\na\n</tool_response>"]
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(WORDS)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(WORDS), inner, max_size=4),
    max_leaves=20,
)


def messages_of(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [message for question, answer in pairs for message in (("user", question), ("assistant", answer))]


def converted(row: object) -> tuple[str, list[tuple]]:
    name, messages, _ = convert(json.loads(json.dumps(row)), None, role_names({}))
    return name, messages


@given(PAIRS)
def test_dialogues_written_in_each_format_come_back(pairs: list[tuple[str, str]]) -> None:
    messages = messages_of(pairs)
    *history, (question, answer) = pairs
    openai = [{"role": role, "content": text} for role, text in messages]
    sharegpt = [{"from": {"user": "human", "assistant": "gpt"}[role], "value": text} for role, text in messages]
    assert converted({"messages": openai}) == ("openai", messages)
    assert converted(openai) == ("openai", messages)
    assert converted({"conversations": sharegpt}) == ("sharegpt", messages)
    spoken = [{"speaker": role, "text": text} for role, text in messages]
    assert converted({"turns": spoken}) == ("turns", messages)
    paired = [{"role": {"user": "来访者", "assistant": "咨询师"}[role], "content": text} for role, text in messages]
    assert converted({"dialogue": paired}) == ("openai", messages)
    assert converted({"data": [text for _, text in messages]}) == ("alternating", messages)
    assert converted({"conversation": [{"human": q, "assistant": a} for q, a in pairs]}) == ("turn-pairs", messages)
    assert converted({"conversation": [{"input": q, "output": a} for q, a in pairs]}) == ("turn-pairs", messages)
    assert converted({"instruction": question, "output": answer, "history": history}) == ("alpaca", messages)
    assert converted({"prompt": question, "response": answer, "history": history}) == ("prompt-response", messages)
    assert converted({"question": question, "answer": answer}) == ("question-answer", messages_of(pairs[-1:]))
    parallel = {"input": [question for question, _ in pairs], "output": [answer for _, answer in pairs]}
    assert converted(parallel) == ("parallel", messages)
    assert converted({"messages": openai[:-1], "chosen": openai[-1], "rejected": openai[-1]}) == (
        "preference",
        messages,
    )
    assert converted({"prompt": sharegpt[:-1], "chosen": openai[-1:]}) == ("preference", messages)
    tree: list[dict] = []
    for role, text in reversed(messages):
        name = {"user": "prompter", "assistant": "assistant"}[role]
        worse = {"role": name, "text": "no", "rank": 1, "replies": []}
        tree = [worse, {"role": name, "text": text, "rank": 0, "replies": tree}]
    assert converted({"prompt": tree[1]}) == ("oasst", messages)
    marked = "".join(f"\n\nHuman: {question}\n\nAssistant: {answer}" for question, answer in pairs)
    if marked.count("\n\nHuman:") == marked.count("\n\nAssistant:") == len(pairs):
        assert converted({"chosen": marked}) == ("hh", messages)


@settings(max_examples=500)
@given(JSON, st.sampled_from([None, *FORMATS]))
def test_any_value_becomes_a_conversation_or_leaves_under_a_known_reason(
    value: object, format_name: str | None
) -> None:
    try:
        _, messages, tools = convert(value, format_name, role_names({}))
        identify(messages, tools, as_json(messages, tools))
    except TurnedAway as away:
        assert away.reason in FIXES
        return
    assert {message[0] for message in messages} <= {"system", "user", "assistant", "tool", "text"}
    assert all(type(message[1]) is str for message in messages)


@settings(max_examples=60, deadline=None)
@given(st.lists(JSON.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=30), max_size=8))
@example([b"{", b"\0", b"null"])
@example([b"[", b"null", b"{", b'""'])
def test_any_bytes_close_the_ledger(pieces: list[bytes]) -> None:
    good = b'{"text": "A page."}'
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        (out / "a.jsonl").write_bytes(b"\n".join([*pieces, good]))
        (out / "b.json").write_bytes(b"".join(pieces))
        (out / "c.json").write_bytes(b"[" + b",".join([*pieces, good]) + b"]")
        manifest = normalize_corpus([folder], out, workers=1)
        lines = sum(1 for line in (out / "a.jsonl").read_bytes().split(b"\n") if line.strip(b" \t\r\x0b\x0c"))
        quarantine = (out / "conversations" / manifest.quarantine.file).read_bytes()
    assert manifest.rows == manifest.kept + sum(manifest.turned_away.values())
    assert manifest.rows >= lines
    assert quarantine.count(b"\n") == sum(manifest.turned_away.values())
    assert manifest.kept == sum(part.rows for part in manifest.parts) == sum(manifest.sources.values())
