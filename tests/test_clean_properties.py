"""Properties: fixing twice is fixing once, counting and off change nothing, the screen misses nothing."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.stages.clean import text
from dataprep.stages.clean.clean import make_cleaner
from dataprep.stages.clean.markup import without_markup
from dataprep.stages.clean.screen import suspected
from dataprep.stages.clean.steps import STEPS
from dataprep.stages.normalize.reasons import TurnedAway

OFF = dict.fromkeys(STEPS, "off")
NASTY = [
    *"\x00\x07\b\f\x0b\r\t\x1b\x7f\x81\x85\xa0 \n\\\"'<>&;`~[]{}|｜,·“”—…",
    *"\u2009\u200b\u2028\u2060\u3000\ufeff\ufffd\U00020001",
]
NASTY += [
    "  ",
    "\n\n",
    "&amp;",
    "&lt;",
    "&nbsp;",
    "&#9;",
    "&#x200b;",
    "<br>",
    "<p>",
    "</p>",
    "<b>",
    "</b>",
    "<a href=x>",
]
NASTY += [
    "</a>",
    "<|im_end|>",
    "<|im_start|>",
    "user",
    "<s>",
    "</s>",
    "[INST]",
    "[gMASK]",
    "<eoh>",
    "<｜x｜>",
    "```",
    "`a`",
]
NASTY += [
    "你 好",
    "你",
    "好 ",
    " 吗",
    "，",
    "{{name}}",
    "<NAME>",
    "NAME_1",
    "[EMAIL]",
    "\x1b[0m",
    "HTML",
    "é",
    "\\u0000",
    "word",
]
TEXT = st.lists(st.sampled_from(NASTY), max_size=8).map("".join) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=12
)
CALLS = st.none() | st.just((("1", "find", '{"a": "\\u0007 &amp;"}'),))
MESSAGE = st.tuples(st.sampled_from(["user", "assistant", "system", "tool"]), TEXT) | st.builds(
    lambda content, reasoning, calls: ("assistant", content, reasoning, calls, None, None, True), TEXT, TEXT, CALLS
)
CONVERSATION = st.lists(MESSAGE, min_size=1, max_size=6) | st.tuples(st.just("text"), TEXT).map(lambda m: [m])
WORDS = {name: [value for value in step.words if value not in ("off", "drop", "count")] for name, step in STEPS.items()}
MENDING = {name: values[0] for name, values in WORDS.items() if values}
MENDERS = {
    "html": without_markup,
    "replacement-chars": text.without_replacement_chars,
    "control-chars": text.without_control_chars,
    "control-tokens": text.without_control_tokens,
    "spaces": text.tidy_spaces,
    "placeholders": text.without_placeholders,
}


def clean_messages(values: dict[str, str], messages: list[Any]) -> tuple[list[Any], tuple[str, ...]] | None:
    try:
        found = make_cleaner(OFF | values)(messages, orjson.dumps((messages, None)))
    except TurnedAway:
        return None
    return (messages, ()) if found is None else (found.messages, found.changed)


@settings(max_examples=400, deadline=None)
@given(CONVERSATION, st.sampled_from([*({name: value} for name, value in MENDING.items()), MENDING]))
def test_fixing_twice_is_fixing_once(messages: list[Any], values: dict[str, str]) -> None:
    once = clean_messages(values, messages)
    if once is not None:
        assert clean_messages(values, once[0]) == (once[0], ())
        assert bool(once[1]) == (once[0] != messages)


@settings(max_examples=200, deadline=None)
@given(CONVERSATION)
def test_counting_changes_nothing(messages: list[Any]) -> None:
    values = {name: "count" for name, step in STEPS.items() if "count" in step.words}
    found = make_cleaner(OFF | values)(messages, orjson.dumps((messages, None)))
    assert found is None or (found.messages is messages and found.changed == ())


@settings(max_examples=200, deadline=None)
@given(CONVERSATION)
def test_off_leaves_everything(messages: list[Any]) -> None:
    assert make_cleaner(OFF)(messages, orjson.dumps((messages, None))) is None


@settings(max_examples=1000, deadline=None)
@given(CONVERSATION)
def test_the_screen_misses_nothing_that_a_step_would_find(messages: list[Any]) -> None:
    suspects = suspected(orjson.dumps((messages, None)), len(messages))
    for name, mend in MENDERS.items():
        if any(mend(part) != part for message in messages for part in (message[1], *message[2:3]) if part):
            assert name in suspects
    if text.is_spaced_chinese([message[1] for message in messages]):
        assert "spaced-chinese" in suspects
    if any(not message[1] or message[1].isspace() for message in messages):
        assert "empty-turns" in suspects


CONTROL_TOKENS = """
<|im_end|> <|start_header_id|> <｜end▁of▁sentence｜> <start_of_turn> <end_of_turn> <unused7> <reserved_106> <extra_id_0>
<<SYS>> <</SYS>> [INST] [/INST] [gMASK] <s> </s> <eot> <eoh> <eoa> <eom> <bos> <eos> <sop> <eop> <pad>
"""


@pytest.mark.parametrize("token", CONTROL_TOKENS.split())
def test_the_screen_knows_every_kind_of_control_token(token: str) -> None:
    messages = [("user", "Hello"), ("assistant", f"Hi{token} there")]
    assert text.without_control_tokens(messages[1][1]) == "Hi there"
    assert "control-tokens" in suspected(orjson.dumps((messages, None)), 2)


@pytest.mark.parametrize(
    "place", ["{{name}}", "<NAME>", "<EMAIL_ADDRESS>", "<PHONE_2>", "<USERNAME>", "[FULL_NAME]", "NAME_1"]
)
def test_the_screen_knows_every_kind_of_placeholder(place: str) -> None:
    messages = [("user", "Hello"), ("assistant", f"Hi {place}!")]
    assert text.without_placeholders(messages[1][1]) == "Hi !"
    assert "placeholders" in suspected(orjson.dumps((messages, None)), 2)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_text_steps_never_raise(any_text: str) -> None:
    for mend in (*MENDERS.values(), text.joined_chinese):
        assert mend(mend(any_text)) == mend(any_text)
