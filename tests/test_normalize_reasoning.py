"""Reasoning, in fields, columns and between tags; contents of several parts; images beside a text; ChatGPT exports."""

import json
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import convert

from dataprep.stages.normalize.message import as_json, identify
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.normalize.texts.thinking import split_thinking

HELLO = [("user", "Hello"), ("assistant", "Hi")]


def answered(content: object, **fields: object) -> tuple[Any, ...]:
    turns = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": content, **fields}]
    return convert({"messages": turns})[1][1]


def turned_away(row: object) -> tuple[str, str]:
    with pytest.raises(TurnedAway) as caught:
        convert(row)
    return caught.value.reason, caught.value.detail


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nHm.\n</think>\n\nHi", ("assistant", "Hi", "Hm.")),
        ("<think>Hm.</think>Hi", ("assistant", "Hi", "Hm.")),
        ("\n<think>\n\n  Hm.\n\nSo.\n</think>\n  Hi\n", ("assistant", "  Hi\n", "  Hm.\n\nSo.")),
        ("Hm.\n</think>\n\nHi", ("assistant", "Hi", "Hm.")),
        ("Hm.</think>\n\nHi", ("assistant", "Hi", "Hm.")),
        ("</think>\n\nHi", ("assistant", "Hi")),
        ("<think>\n\n</think>\n\nHi", ("assistant", "Hi")),
        ("<think></think>Hi", ("assistant", "Hi")),
        ("<think>\r\nHm.\r\n</think>\r\n\r\nHi", ("assistant", "Hi", "Hm.")),
        ("<think>\n\n</think>", ("assistant", "")),
        ("<thinking>\nHm.\n</thinking>\nHi", ("assistant", "Hi", "Hm.")),
        ("<reasoning>\nHm.\n</reasoning>\n<answer>Hi</answer>", ("assistant", "<answer>Hi</answer>", "Hm.")),
        (
            "<|begin_of_thought|>\n\nHm.\n\n<|end_of_thought|>\n\n<|begin_of_solution|>\n\nHi\n\n<|end_of_solution|>",
            ("assistant", "Hi", "Hm."),
        ),
        ("<think>\nHm.\n</think>\n\nHi</think>", ("assistant", "Hi</think>", "Hm.")),
        ("<think></think>Hi </think>.", ("assistant", "Hi </think>.", "")),
    ],
)
def test_reasoning_at_the_head_of_an_answer_is_kept_apart(text: str, expected: tuple[str, ...]) -> None:
    assert answered(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "Write `<think>` first and `</think>` last.",
        "A model ends it with </think> and goes on.",
        "```\nHm.\n</think>\nHi\n```",
        "<reasoning> is an XML tag.",
        "First <think>a</think> then <think>b</think>",
    ],
)
def test_an_answer_that_only_speaks_of_tags_stays_whole_also_where_a_template_would_split_it(text: str) -> None:
    assert answered(text) == (("assistant", text, "") if "</think>" in text else ("assistant", text))
    message = {"role": "assistant", "content": text} | ({"reasoning_content": ""} if "</think>" in text else {})
    whole = rendered(TRL_QWEN3, {"role": "user", "content": "Hello"}, message)
    assert whole.endswith(f"<think>\n\n</think>\n\n{text}<|im_end|>\n")


def test_only_the_assistants_texts_are_looked_into() -> None:
    turns = [("system", "<think>\na\n</think>\nb"), ("user", "<think>\na\n</think>\nb"), ("assistant", "Hi <b>.")]
    assert convert([{"role": role, "content": text} for role, text in turns])[1] == turns


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("<think>\nHm, so", "truncated-reasoning", "message 2 begins with <think> and has no </think>"),
        ("<thinking>Hm", "truncated-reasoning", "message 2 begins with <thinking> and has no </thinking>"),
        (
            "<|begin_of_thought|>Hm",
            "truncated-reasoning",
            "message 2 begins with <|begin_of_thought|> and has no <|end_of_thought|>",
        ),
        ("<think>\nHm.\n</think>\n\n", "empty-assistant-turn", "message 2 has reasoning and no answer after it"),
        ("Hm.\n</think>", "empty-assistant-turn", "message 2 has reasoning and no answer after it"),
    ],
)
def test_reasoning_without_an_end_or_an_answer_is_turned_away(text: str, reason: str, detail: str) -> None:
    row = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": text}]
    assert turned_away(row) == (reason, detail)


def test_reasoning_in_a_field_without_an_answer_is_turned_away() -> None:
    row = [{"role": "assistant", "content": "", "reasoning_content": "Hm."}]
    assert turned_away(row) == ("empty-assistant-turn", "message 1 has reasoning and no answer after it")


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking", "thought"])
def test_reasoning_may_stand_in_a_field_of_several_names(key: str) -> None:
    assert answered("Hi", **{key: "Hm."}) == ("assistant", "Hi", "Hm.")
    assert answered("Hi", **{key: ""}) == answered("Hi", **{key: None}) == answered("Hi", **{key: True})


def test_reasoning_that_a_field_and_the_text_both_hold_is_said_once() -> None:
    assert answered("<think>\nHm.\n</think>\n\nHi", reasoning_content="Hm.\n") == ("assistant", "Hi", "Hm.")
    assert answered("<think>\n\n</think>\n\nHi", reasoning_content="Hm.") == ("assistant", "Hi", "Hm.")
    row = [{"role": "assistant", "content": "<think>So.</think>Hi", "reasoning": "Hm."}]
    assert turned_away(row)[1] == "message 1 has two reasonings: one in a field, another in its text"


def test_reasoning_stands_before_a_call_and_keeps_name_and_train() -> None:
    text = '<think>\nHm.\n</think>\n\n<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    expected = ("assistant", "", "Hm.", ((None, "now", "{}"),), "ann", None, False)
    assert answered(text, name="ann", train=False) == expected
    calls = [{"name": "now", "arguments": "{}"}]
    assert answered("<think>Hm.</think>", tool_calls=calls) == ("assistant", "", "Hm.", ((None, "now", "{}"),))


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Hello", "input": "", "output": "Hi", "reasoning": "Hm."},
        {"prompt": "Hello", "response": "Hi", "thinking": "Hm."},
        {"question": "Hello", "answer": "Hi", "cot": "Hm."},
        {"question": "Hello", "answer": "<think>\nHm.\n</think>\n\nHi", "reasoning": "Hm."},
        {"prompt": "Hello", "response": "<think>Hm.</think>Hi", "reasoning": "on"},
    ],
)
def test_a_column_of_reasoning_beside_an_answer_is_the_answers(row: dict) -> None:
    assert convert(row)[1] == [("user", "Hello"), ("assistant", "Hi", "Hm.")]


def test_columns_in_capitals_are_read_alike() -> None:
    row = {"Question": "Hello", "Complex_CoT": "Hm.", "Response": "Hi"}
    assert convert(row, "question-answer")[1] == [("user", "Hello"), ("assistant", "Hi", "Hm.")]


@pytest.mark.parametrize("value", ["on", "off", True, None, "", 3, {"effort": "high"}])
def test_a_column_that_only_says_whether_there_is_reasoning_holds_none(value: object) -> None:
    assert convert({"prompt": "Hello", "response": "Hi", "reasoning": value})[1] == HELLO


def test_tags_are_read_in_every_format() -> None:
    text = "<think>\nHm.\n</think>\n\nHi"
    expected = [("user", "Hello"), ("assistant", "Hi", "Hm.")]
    rows: list[Any] = [
        {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": text}]},
        {"conversation": [{"human": "Hello", "assistant": text}]},
        {"data": ["Hello", text]},
        {"input": ["Hello"], "output": [text]},
        {"instruction": "Hello", "output": text},
        {"chosen": f"\n\nHuman: Hello\n\nAssistant: {text}"},
        {"prompt": "Hello", "chosen": [{"role": "assistant", "content": text}]},
    ]
    for row in rows:
        assert convert(row)[1] == expected


TRL_QWEN3 = (files("trl") / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
BREAKS = st.sampled_from(["", "\n", "\n\n"])
WORDS = st.text("ab .</中\n", min_size=1, max_size=8).filter(lambda text: text.strip() != "" and "</t" not in text)


@cache
def compiled(template: str) -> jinja2.Template:
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
    return environment.from_string(template)


def rendered(template: str, *messages: dict) -> str:
    return compiled(template).render(messages=list(messages), add_generation_prompt=False)


def renders_alike(template: str, text: str) -> None:
    split = split_thinking(text, "x")
    assert split is not None
    reasoning, content = split
    user = {"role": "user", "content": "Hello"}
    apart = {"role": "assistant", "content": content} | ({"reasoning_content": reasoning} if reasoning else {})
    whole = {"role": "assistant", "content": text}
    assert rendered(template, user, apart) == rendered(template, user, whole)
    assert rendered(template, user, apart, user, apart) == rendered(template, user, whole, user, whole)


@given(BREAKS, WORDS | st.just(""), BREAKS, BREAKS, WORDS)
def test_qwen3s_template_renders_the_split_message_and_the_text_alike(
    before: str, thought: str, after: str, between: str, answer: str
) -> None:
    renders_alike(TRL_QWEN3, f"<think>{before}{thought}{after}</think>{between}{answer}")
    renders_alike(TRL_QWEN3, f"{thought}\n</think>\n{between}{answer}")


@given(BREAKS, WORDS | st.just(""), BREAKS, BREAKS, WORDS)
def test_reasoning_comes_back(before: str, thought: str, after: str, between: str, answer: str) -> None:
    thought, answer = thought.strip("\n"), answer.lstrip("\n")
    expected = (thought if thought.strip() else None, answer)
    for opening, closing in (("<think>", "</think>"), ("<thinking>", "</thinking>"), ("<reasoning>", "</reasoning>")):
        assert split_thinking(f"{opening}{before}{thought}{after}{closing}{between}{answer}", "x") == expected


def test_the_released_template_of_qwen3_renders_alike(shared: Path) -> None:
    template = json.loads((shared / "tokenizers/qwen3/tokenizer_config.json").read_bytes())["chat_template"]
    for text in (
        "<think>\nHm.\n</think>\n\nHi",
        "<think>\n\n</think>\n\nHi",
        "Hm.\n</think>\n\nHi",
        "<think>a</think>b",
    ):
        renders_alike(template, text)


@pytest.mark.parametrize(
    "content",
    [
        "Hello",
        ["Hel", "lo"],
        [{"type": "text", "text": "Hel"}, {"type": "text", "value": "lo"}],
        [{"type": "input_text", "text": "Hello"}],
        [{"text": "Hello"}],
        [{"type": None, "text": "Hello"}],
        {"text": "Hello"},
        {"content": "Hello"},
        {"content_type": "text", "parts": ["Hel", "lo"]},
    ],
)
def test_a_content_may_hold_its_text_in_parts(content: object) -> None:
    row = [{"role": "user", "content": content}, {"role": "assistant", "content": "Hi"}]
    assert convert(row)[1] == HELLO


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        ([{"type": "image_url", "image_url": {}}], "message 1 has a content part of type 'image_url'"),
        ([{"type": "audio"}, "Hello"], "message 1 has a content part of type 'audio'"),
        ({"type": "video", "video": "a.mp4"}, "message 1 has content of type 'video'"),
        (
            {"content_type": "multimodal_text", "parts": [{"content_type": "image_asset_pointer"}, "Hello"]},
            "message 1 has a content part of type 'image_asset_pointer'",
        ),
    ],
)
def test_parts_that_are_no_text_are_named(content: object, detail: str) -> None:
    row = [{"role": "user", "content": content}, {"role": "assistant", "content": "Hi"}]
    assert turned_away(row) == ("non-text-content", detail)


@pytest.mark.parametrize("key", ["image", "images", "video", "videos", "audio", "audios"])
def test_media_that_a_text_has_a_place_for_are_no_silent_loss(key: str) -> None:
    row = {"messages": [{"role": "user", "content": "<image>Hello"}, {"role": "assistant", "content": "Hi"}]}
    detail = f"{key} is not empty, and a text has <image… for it"
    assert turned_away({**row, key: ["a.png"]}) == ("non-text-content", detail)
    assert turned_away({**row, key: "a.png"}) == ("non-text-content", detail)
    for empty in ([], None, ""):
        assert convert({**row, key: empty})[1] == [("user", "<image>Hello"), ("assistant", "Hi")]


def test_media_files_are_no_silent_loss_and_a_name_alone_is_no_file() -> None:
    row = {"question": "Hello", "answer": "Hi"}
    detail = "image holds an object beside the text"
    assert turned_away({**row, "image": {"bytes": b"", "path": "a.png"}}) == ("non-text-content", detail)
    assert convert({**row, "image": "https://example.org/cover.png"})[1] == HELLO


def node(parent: str | None, role: str, content: object, **more: object) -> dict:
    return {"parent": parent, "children": [], "message": {"author": {"role": role}, "content": content, **more}}


def text_parts(*parts: object) -> dict:
    return {"content_type": "text", "parts": list(parts)}


def test_a_chatgpt_export_is_read_along_the_branch_last_looked_at() -> None:
    mapping = {
        "root": {"parent": None, "message": None},
        "s": node("root", "system", text_parts("")),
        "c": node("s", "user", {"content_type": "user_editable_context", "user_profile": "x"}),
        "q": node("c", "user", text_parts("Hello")),
        "a1": node("q", "assistant", text_parts("No"), recipient="all"),
        "t": node("q", "assistant", {"content_type": "thoughts", "thoughts": [{"summary": "s", "content": "Hm."}]}),
        "r": node("t", "assistant", {"content_type": "reasoning_recap", "content": "Thought for 2 s"}),
        "e": node("r", "assistant", text_parts(""), recipient="all"),
        "p": node("e", "assistant", {"content_type": "code", "text": "1 + 1"}, recipient="python"),
        "o": node("p", "tool", {"content_type": "execution_output", "text": "2"}),
        "h": node("o", "assistant", text_parts(""), metadata={"is_visually_hidden_from_conversation": True}),
        "a2": node("h", "assistant", text_parts("Hi"), recipient="all"),
    }
    mapping["o"]["message"]["author"]["name"] = "python"
    row = {"title": "T", "mapping": mapping, "current_node": "a2", "moderation_results": []}
    messages = [
        ("user", "Hello"),
        ("assistant", "", "Hm.", ((None, "python", '{"code":"1 + 1"}'),)),
        ("tool", "2", None, None, "python"),
        ("assistant", "Hi"),
    ]
    assert convert(row) == ("chatgpt", messages, None)
    assert convert({**row, "current_node": "a1"})[1] == [("user", "Hello"), ("assistant", "No")]
    assert convert({"mapping": mapping})[1] == messages


@pytest.mark.parametrize(
    ("content", "role", "reason", "detail"),
    [
        (
            {"content_type": "multimodal_text", "parts": [{"content_type": "image_asset_pointer"}]},
            "user",
            "non-text-content",
            "message 1 has a content part of type 'image_asset_pointer'",
        ),
        ({"content_type": "tether"}, "user", "non-text-content", "message 1 has content of type 'tether'"),
        (None, "user", "bad-message", "message 1: content is null, expected an object"),
        (
            text_parts("Hi"),
            "critic",
            "bad-message",
            "message 1 has author 'critic'; expected user, assistant, system or tool",
        ),
    ],
)
def test_a_node_that_can_not_be_read_turns_its_export_away(
    content: object, role: str, reason: str, detail: str
) -> None:
    assert turned_away({"mapping": {"a": node(None, role, content)}, "current_node": "a"}) == (reason, detail)


def test_an_export_without_words_is_turned_away() -> None:
    mapping = {"a": node(None, "system", text_parts(""))}
    assert turned_away({"mapping": mapping}) == ("no-messages", "no node of the branch holds words")


@pytest.mark.parametrize(
    "mapping", [{"a": node("b", "user", text_parts("x"))}, {"a": node("a", "user", text_parts("x"))}]
)
def test_a_branch_that_does_not_reach_the_root_is_turned_away(mapping: dict) -> None:
    reason, detail = turned_away({"mapping": mapping, "current_node": "a"})
    assert reason == "bad-message"
    assert detail.endswith("is missing, or its own ancestor")


KEYS = [*("type", "text", "value", "content", "parts", "thinking", "input", "name", "id", "tool_use", "parent")]
KEYS += [*("tool_result", "arguments", "functionCall", "functionResponse", "thought", "response", "args")]
KEYS += [*("author", "role", "recipient", "message", "thoughts", "content_type")]
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4) | st.just("<tool_call>{"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(KEYS),
            inner
            | st.sampled_from(["thinking", "tool_use", "tool_result", "text", "user", "assistant", "thoughts", "code"]),
            max_size=5,
        )
    ),
    max_leaves=12,
)


@given(JSON, st.sampled_from(["user", "assistant", "tool", "function_call"]))
def test_any_content_is_read_or_turned_away(content: object, role: str) -> None:
    messages = [{"role": role, "content": content}, {"role": "assistant", "content": "Hi"}]
    nodes = {"a": {"message": content}, "b": {"parent": "a", "message": {"author": {"role": role}, "content": content}}}
    rows: list[Any] = [
        messages,
        {"mapping": nodes, "current_node": "b"},
        {"query": "?", "tools": "[]", "answers": content},
        {"messages": messages, "tools": content, "images": content},
    ]
    for row in rows:
        try:
            _, read, tools = convert(row)
            identify(read, tools, as_json(read, tools))
        except TurnedAway:
            continue
        assert all(type(message[1]) is str for message in read)
