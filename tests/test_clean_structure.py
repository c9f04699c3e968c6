"""Steps on the order of turns: roles and texts in, roles and texts out."""

from typing import Any

import orjson
import pytest

from dataprep.stages.clean.clean import make_cleaner
from dataprep.stages.clean.cleaned import Cleaned
from dataprep.stages.clean.steps import STEPS
from dataprep.stages.normalize.reasons import TurnedAway

OFF = dict.fromkeys(STEPS, "off")
ROLES = {"s": "system", "u": "user", "a": "assistant", "t": "tool"}


def conversation(text: str) -> list[tuple[Any, ...]]:
    """Read "u:Hi a:" as a question and an empty answer."""
    return [(ROLES[turn[0]], turn[2:]) for turn in text.split(" ")]


def written(messages: list[tuple[Any, ...]]) -> str:
    return " ".join(f"{message[0][0]}:{message[1]}" for message in messages)


def run(step: str, value: str, messages: list[tuple[Any, ...]]) -> Cleaned | None:
    return make_cleaner(OFF | {step: value})(messages, orjson.dumps((messages, None)))


FIXED = [
    ("empty-turns", "fix", "u:1 a:2 u:3 a:", "u:1 a:2"),
    ("empty-turns", "fix", "u:1 a:2 u:3 a:\n\t u:4", "u:1 a:2"),
    ("empty-turns", "fix", "u:1 a:2 u:3 a: u:4 a:\u3000", "u:1 a:2"),
    ("empty-turns", "fix", "s: u:1 a:2", "u:1 a:2"),
    ("first-role", "fix", "s:0 a:1 u:2 a:3", "s:0 u:2 a:3"),
    ("first-role", "fix", "a:1 t:2 a:3 u:4 a:5", "u:4 a:5"),
    ("last-role", "fix", "u:1 a:2 u:3", "u:1 a:2"),
    ("last-role", "fix", "u:1 a:2 t:3 s:4 u:5", "u:1 a:2"),
    ("same-role", "merge", "u:1 u:2 a:3 a:4 a:5", "u:1\n2 a:3\n4\n5"),
]


@pytest.mark.parametrize(("step", "value", "before", "after"), FIXED)
def test_a_step_puts_turns_in_order(step: str, value: str, before: str, after: str) -> None:
    found = run(step, value, conversation(before))
    assert found is not None and written(found.messages) == after
    assert found.changed == (step,) and found.seen == ()


@pytest.mark.parametrize(("step", "before"), [(step, before) for step, _, before, _ in FIXED])
def test_count_leaves_turns_as_they_are(step: str, before: str) -> None:
    messages = conversation(before)
    found = run(step, "count", messages)
    assert found is not None and found.messages is messages and found.changed == () and found.seen == (step,)


TURNED_AWAY = [
    ("empty-turns", "fix", "u:1 a: u:2 a:3", "empty-assistant-turn", "message 2 is an empty assistant turn"),
    ("empty-turns", "fix", "u:1 a:", "empty-assistant-turn", "message 2 is an empty assistant turn"),
    ("empty-turns", "drop", "u:1 a:2 u:3 a:", "empty-assistant-turn", "message 4 is an empty assistant turn"),
    (
        "first-role",
        "drop",
        "s:0 a:1 u:2 a:3",
        "first-role",
        "message 2, the first beside system messages, is the assistant's",
    ),
    ("first-role", "fix", "a:1", "no-assistant-turn", "no message of the assistant is there, or left"),
    ("first-role", "fix", "a:1 u:2", "no-assistant-turn", "no message of the assistant is there, or left"),
    ("last-role", "drop", "u:1 a:2 u:3", "last-role", "message 3, the last, is the user's"),
    ("last-role", "fix", "u:1", "no-assistant-turn", "no message of the assistant is there, or left"),
    ("system-role", "drop", "u:1 a:2 s:3 u:4 a:5", "system-role", "message 3 is a system message in the middle"),
    ("same-role", "drop", "u:1 a:2 a:3", "same-role", "messages 2 and 3 are both the assistant's"),
]


@pytest.mark.parametrize(("step", "value", "before", "reason", "detail"), TURNED_AWAY)
def test_a_conversation_is_turned_away(step: str, value: str, before: str, reason: str, detail: str) -> None:
    with pytest.raises(TurnedAway) as caught:
        run(step, value, conversation(before))
    assert (caught.value.reason, caught.value.detail) == (reason, detail)


@pytest.mark.parametrize("before", ["u:1 a:2", "s:0 u:1 a:2 u:3 a:4", "u:1 a:2 t:3 t:4 a:5", "s:0 u:1 t:2 a:3"])
def test_a_conversation_in_order_passes_every_step(before: str) -> None:
    for step in ("empty-turns", "first-role", "last-role", "system-role", "same-role"):
        for value in STEPS[step].words:
            assert run(step, value, conversation(before)) is None


def test_empty_questions_are_counted_and_left() -> None:
    messages = conversation("u: a:1")
    found = run("empty-turns", "fix", messages)
    assert found is not None and found.messages is messages and found.seen == ("empty-turns",)


def test_an_answer_that_calls_a_tool_or_reasons_is_not_empty() -> None:
    call = (("1", "find", "{}"),)
    for last in (("assistant", "", None, call), ("assistant", "", "hm")):
        assert run("empty-turns", "fix", [("user", "a"), last]) is None


def test_an_empty_tool_output_is_an_output() -> None:
    assert run("empty-turns", "fix", conversation("u:1 a:2 t: a:3")) is None


def test_merge_leaves_and_counts_turns_with_more_than_a_text() -> None:
    messages = [("user", "a"), ("assistant", "b", "hm"), ("assistant", "c"), ("assistant", "d")]
    found = run("same-role", "merge", messages)
    assert found is not None and found.messages == [*messages[:2], ("assistant", "c\nd")]
    assert found.changed == ("same-role",) and found.seen == ("same-role",)


def test_two_tool_calls_may_follow_each_other() -> None:
    call = ("assistant", "", None, (("1", "find", "{}"),))
    messages = [("user", "a"), call, call, ("tool", "b"), ("tool", "c"), ("assistant", "d")]
    assert run("same-role", "drop", messages) is None


def test_a_second_system_message_at_the_start_is_seen() -> None:
    found = run("system-role", "count", conversation("s:0 s:1 u:2 a:3"))
    assert found is not None and found.seen == ("system-role",)


def test_documents_are_never_touched() -> None:
    for step in ("empty-turns", "first-role", "last-role", "system-role", "same-role"):
        for value in STEPS[step].words:
            assert run(step, value, [("text", "")]) is None


def test_the_defaults_cut_unanswered_turns_and_change_nothing_else() -> None:
    messages = [("assistant", "Hi &amp; "), ("user", "a\x07"), ("user", "b"), ("assistant", "<|x|>"), ("user", "c")]
    clean = make_cleaner({name: step.default for name, step in STEPS.items()})
    found = clean(messages, orjson.dumps((messages, None)))
    assert found is not None and found.messages == messages[:4] and found.changed == ("last-role",)
    assert found.seen == ("html", "control-chars", "control-tokens", "spaces", "first-role", "same-role")
