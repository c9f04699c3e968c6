"""Each reason for which a row is turned away: its code, what it says, and how to mend it."""

import pytest
from rows import convert

from dataprep.stages.normalize.convert import role_names
from dataprep.stages.normalize.formats.turns import ROLE_KEYS
from dataprep.stages.normalize.message import as_json, identify
from dataprep.stages.normalize.reasons import FIXES, TurnedAway


def turned_away(row: object, format_name: str | None = None) -> TurnedAway:
    with pytest.raises(TurnedAway) as caught:
        _, messages, tools = convert(row, format_name, role_names({}))
        identify(messages, tools, as_json(messages, tools))
    assert caught.value.fix
    assert "\n" not in caught.value.detail
    return caught.value


def asked(*answers: object) -> dict:
    return {"messages": [{"role": "user", "content": "Hello"}, *answers]}


def tree(*replies: object) -> dict:
    return {"prompt": {"role": "prompter", "text": "Hello", "replies": list(replies)}}


def calling(arguments: object, **more: object) -> dict:
    call = {"function": {"name": "area", "arguments": arguments}, **more}
    return asked({"role": "assistant", "content": None, "tool_calls": [call]})


ROWS: list[tuple[object, str, str]] = [
    (5, "not-an-object", "the row is a number, expected an object"),
    (None, "not-an-object", "the row is null, expected an object"),
    ({"title": "x", "body": "y"}, "unknown-format", "no known format has these keys: title, body"),
    ({}, "unknown-format", "no known format has these keys: none that is not null"),
    ({"text": None}, "unknown-format", "no known format has these keys: none that is not null"),
    ({"messages": []}, "no-messages", "messages is an empty list"),
    ([], "no-messages", "the row is an empty list"),
    ({"messages": "hello"}, "no-messages", "messages is a string, expected a list"),
    (asked("Hi"), "bad-message", "message 2 is a string, expected an object"),
    (asked({"role": None, "content": "Hi"}), "bad-message", "message 2: role is null, expected a string"),
    (asked({"content": "Hi"}), "bad-message", "message 2 has no 'role'; its keys are content"),
    (
        asked({"role": "assistant", "content": "Hi", "name": 5}),
        "bad-message",
        "message 2: name is a number, expected a string",
    ),
    (asked({"role": "user", "content": None}), "no-content", "message 2 has no content"),
    (asked({"role": "user"}), "no-content", "message 2 has no content"),
    (asked({"role": "user", "content": {"a": 1}}), "non-text-content", "message 2 has an object for content"),
    (
        asked({"role": "user", "content": [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {}}]}),
        "non-text-content",
        "message 2 has a content part of type 'image_url'",
    ),
    (asked(), "no-assistant-turn", "the roles are user; none is the assistant's"),
    (calling("[1]"), "bad-tool-call", "message 2: arguments of 'area' are a list, expected a JSON object"),
    (calling(None), "bad-tool-call", "message 2: arguments of 'area' are null, expected a JSON object"),
    (calling({}, id=7), "bad-tool-call", "message 2: the id of the call of 'area' is a number"),
    (
        asked({"role": "assistant", "tool_calls": [{"function": {"arguments": "{}"}}]}),
        "bad-tool-call",
        "message 2: a tool call has no name",
    ),
    (
        asked({"role": "assistant", "tool_calls": {"name": "f"}}),
        "bad-tool-call",
        "message 2: tool_calls is an object, expected a list",
    ),
    (
        {"conversations": [{"from": "function_call", "value": "[]"}]},
        "bad-tool-call",
        "message 1: the list of calls is empty",
    ),
    (asked({"role": "assistant", "content": "Hi", "weight": 0.5}), "bad-train-flag", "message 2: weight is 0.5"),
    (
        asked({"role": "assistant", "content": "Hi"}) | {"tools": '{"name": "area"}'},
        "bad-tools",
        "tools is an object, expected a JSON array",
    ),
    (
        asked({"role": "assistant", "content": "Hi"}) | {"tools": ["area"]},
        "bad-tools",
        "tools holds a string, expected objects",
    ),
    (
        {"conversation": [{"question": "Hello"}]},
        "bad-message",
        "turn 1 has no text under any of the keys system, human, user, input, assistant, output",
    ),
    ({"instruction": "Hello", "output": 5}, "non-text-content", "output has a number for content"),
    (
        {"instruction": "Hello", "output": "Hi", "history": "x"},
        "bad-history",
        "history is a string, expected a list",
    ),
    (
        {"prompt": "Hello", "response": "Hi", "history": [["x"]]},
        "bad-history",
        "pair 1 of history is not a [question, answer] pair",
    ),
    ({"data": ["Hello", 5]}, "bad-message", "message 2 is a number, expected a string"),
    ({"data": ["Hello"]}, "no-assistant-turn", "the roles are user; none is the assistant's"),
    ({"question": "Hello", "answer": ["Hi", "Ho"]}, "non-text-content", "answer is a list of 2 texts, expected one"),
    ({"question": ["Hello", "Bye"], "answer": "Hi"}, "non-text-content", "question is a list, expected a string"),
    ({"answer": "Hi"}, "unknown-format", "no known format has these keys: answer"),
    (
        {"input": ["Hello"], "output": ["Hi", "Ho"]},
        "uneven-lists",
        "input and output hold 1 and 2 texts; one output an input is expected",
    ),
    (
        {"input": ["a", "b", "c"], "output": ["d"]},
        "uneven-lists",
        "input and output hold 3 and 1 texts; one output an input is expected",
    ),
    ({"input": [], "output": []}, "no-messages", "input is an empty list"),
    ({"input": [5], "output": ["Hi"]}, "bad-message", "input 1 is a number, expected a string"),
    ({"input": ["Hello"], "output": [["Hi"]]}, "bad-message", "output 1 is a list, expected a string"),
    (
        {"prompt": "Hello", "chosen": [{"role": "user", "content": "x"}]},
        "no-assistant-turn",
        "the roles are user; none is the assistant's",
    ),
    (tree({"role": "bot", "text": "Hi"}), "bad-message", "message 2 has role 'bot'; expected prompter or assistant"),
    (tree(), "no-assistant-turn", "the roles are user; none is the assistant's"),
    (tree("Hi"), "bad-message", "message 2 is a string, expected an object"),
    (
        {"prompt": {"role": "prompter", "text": "Hello", "replies": "Hi"}},
        "bad-message",
        "message 1: replies is a string, expected a list",
    ),
    ({"text": " "}, "no-content", "text is empty"),
    (asked({"role": "assistant", "content": "a\0b"}), "nul-character", "the text holds a NUL character (\\u0000)"),
    (calling('{"a": "\\u0000"}'), "nul-character", "the text holds a NUL character (\\u0000)"),
]


@pytest.mark.parametrize(("row", "reason", "detail"), ROWS)
def test_a_row_is_turned_away_with_its_reason(row: object, reason: str, detail: str) -> None:
    away = turned_away(row)
    assert (away.reason, away.detail) == (reason, detail)


def test_an_unknown_role_is_named_with_the_flag_that_maps_it() -> None:
    away = turned_away(asked({"role": "narrator", "content": "Hi"}))
    assert away.reason == "unknown-role"
    assert away.detail.startswith("message 2 has role 'narrator'; expected one of user, human, assistant,")
    assert away.fix.startswith("map it with --role narrator=assistant")


@pytest.mark.parametrize(
    ("arguments", "words"), [('{"a": ', "are not JSON"), ('{"a": "\\ud800"}', "are not JSON"), ("", "are not JSON")]
)
def test_arguments_must_be_json(arguments: str, words: str) -> None:
    away = turned_away(calling(arguments))
    assert away.reason == "bad-tool-call"
    assert words in away.detail


def test_a_function_call_must_be_json() -> None:
    away = turned_away({"conversations": [{"from": "function_call", "value": "area(1)"}]})
    assert away.reason == "bad-tool-call"
    assert away.detail.startswith("message 1: the call is not JSON")


def test_tools_must_be_json() -> None:
    away = turned_away(asked({"role": "assistant", "content": "Hi"}) | {"tools": "[{]"})
    assert away.reason == "bad-tools"
    assert away.detail.startswith("tools is not JSON")


@pytest.mark.parametrize(
    ("format_name", "row", "detail"),
    [
        ("alpaca", {"prompt": "x", "response": "y"}, "alpaca needs the key 'instruction', which the row lacks"),
        ("text", [{"role": "user"}], "the row is a list; text needs an object"),
        ("openai", {"text": "x"}, "the row has no list of turns; its keys are text"),
        ("alternating", {"text": "x"}, "the row has no list of strings; alternating needs one"),
        ("question-answer", ["Hello"], "the row is a list; question-answer needs an object"),
        (
            "question-answer",
            {"question": "Hello"},
            "question-answer needs one of the keys response, answer, completion, output, chosen",
        ),
        (
            "question-answer",
            {"answer": "Hi"},
            "question-answer needs one of the keys instruction, question, query, prompt, input, title, ask, body",
        ),
        ("parallel", {"input": "Hello", "output": "Hi"}, "input is a string; parallel needs a list"),
        ("parallel", ["Hello"], "the row is a list; parallel needs an object"),
        ("preference", {"prompt": "x"}, "preference needs an object with the key 'chosen'"),
        (
            "oasst",
            {"prompt": "x"},
            "oasst needs the key 'prompt' with an object that has text and replies",
        ),
        ("turns", {"text": "x"}, "the row has no list of turns; its keys are text"),
    ],
)
def test_rows_that_do_not_fit_a_forced_format_are_turned_away(format_name: str, row: object, detail: str) -> None:
    away = turned_away(row, format_name)
    assert (away.reason, away.detail) == ("format-mismatch", detail)
    assert "--format" in away.fix


@pytest.mark.parametrize(
    ("turn", "detail"),
    [
        ({"by": "a"}, f"message 1 has no role under any of {', '.join(ROLE_KEYS)}; its keys are by"),
        ("Hi", "message 1 is a string, expected an object"),
    ],
)
def test_turns_must_have_a_role(turn: object, detail: str) -> None:
    away = turned_away({"messages": [turn]}, "turns")
    assert (away.reason, away.detail) == ("bad-message", detail)


def test_each_turn_has_the_keys_of_the_first() -> None:
    away = turned_away({"dialog": [{"speaker": "user", "text": "Hello"}, {"role": "assistant", "text": "Hi"}]})
    assert (away.reason, away.detail) == ("bad-message", "message 2 has no 'speaker'; its keys are role, text")


@pytest.mark.parametrize(
    ("chosen", "detail"),
    [([], "chosen is an empty list"), (5, "chosen is a number, expected a message or a list of messages")],
)
def test_a_preference_needs_a_message(chosen: object, detail: str) -> None:
    away = turned_away({"prompt": "Hello", "chosen": chosen}, "preference")
    assert (away.reason, away.detail) == ("no-messages", detail)


def test_marked_text_must_begin_with_a_mark() -> None:
    assert turned_away({"chosen": "Hello"}, "hh").reason == "bad-marks"


def test_a_backslash_before_u0000_is_text_and_no_nul() -> None:
    row = asked({"role": "assistant", "content": "write \\u0000 for NUL"})
    assert convert(row, None, role_names({}))[1][1] == ("assistant", "write \\u0000 for NUL")


def test_every_reason_has_a_code_in_words_and_a_fix() -> None:
    for reason, fix in FIXES.items():
        assert reason == reason.lower().replace("_", "-").replace(" ", "-")
        assert fix
