"""Steps that judge a conversation as a whole: what they turn away, and what they keep."""

from typing import Any

import orjson
import pytest

from dataprep.stages.clean.clean import make_cleaner
from dataprep.stages.clean.cleaned import Cleaned
from dataprep.stages.clean.repetition import repeated_share
from dataprep.stages.clean.steps import STEPS
from dataprep.stages.normalize.reasons import FIXES, TurnedAway

OFF = dict.fromkeys(STEPS, "off")


def run(step: str, value: str, *texts: str) -> Cleaned | None:
    messages: list[tuple[Any, ...]] = [("assistant" if place % 2 else "user", text) for place, text in enumerate(texts)]
    return make_cleaner(OFF | {step: value})(messages, orjson.dumps((messages, None)))


def reason_of(step: str, value: str, *texts: str) -> tuple[str, str]:
    with pytest.raises(TurnedAway) as caught:
        run(step, value, *texts)
    assert caught.value.reason in FIXES
    return caught.value.reason, caught.value.detail


REFUSALS = [
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I’m not able to do that.",
    "Sorry, I cannot share that.",
    "I apologize, but I cannot fulfill this request.",
    "Unfortunately, I am unable to open links.",
    "I cannot assist with that request.",
    "I'm unable to provide medical advice.",
    "Well, as an AI language model, I have no body.",
    "As an AI, I don't eat.",
    "I am just a language model.",
    "I'm an AI language model and have no home.",
    "I am a model trained by OpenAI.",
    "很抱歉，我无法回答这个问题。",
    "对不起，作为一个人工智能，我不能这样做。",
    "作为一个AI语言模型，我没有感情。",
    "作为一名人工智能助手，我只能聊天。",
    "我是由OpenAI训练的。",
    "我无法提供这样的建议。",
]
ANSWERS = [
    "I'm sorry to hear that. How long have you felt like this?",
    "I can't wait to see it!",
    "Say: 'I'm sorry, but I can't come.'",
    "As a model citizen, she votes. As an assistant, he helps.",
    "OpenAI developed GPT-3.",
    "I'm a language model trained by the people of our town.",
    "对不起，让你久等了。",
    "很抱歉听到这个消息，你一定很难过。",
    "GPT-3 是由 OpenAI 开发的。",
    "他作为一个模型师工作了十年。",
]


@pytest.mark.parametrize("answer", REFUSALS)
def test_refusals_and_boilerplate_are_counted_or_turn_away(answer: str) -> None:
    assert reason_of("refusals", "drop", "Well?", "Yes.", "And?", answer)[0] == "refusals"
    found = run("refusals", "count", "Well?", answer)
    assert found is not None and found.seen == ("refusals",) and found.changed == ()


@pytest.mark.parametrize("answer", ANSWERS)
def test_what_only_sounds_like_a_refusal_is_kept(answer: str) -> None:
    assert run("refusals", "drop", "Well?", answer) is None


def test_only_answers_can_refuse() -> None:
    assert run("refusals", "drop", "I'm sorry, but I can't sleep.", "Since when?") is None


def test_limits_name_what_they_found() -> None:
    assert reason_of("min-turns", "4", "a", "b") == ("too-few-turns", "2 messages of user and assistant, below 4")
    assert reason_of("max-turns", "1", "a", "b") == ("too-many-turns", "2 messages of user and assistant, above 1")
    assert reason_of("min-chars", "5", "你好", "b") == ("too-few-chars", "3 characters in all, below 5")
    assert reason_of("max-chars", "2", "你好", "b") == ("too-many-chars", "3 characters in all, above 2")
    assert reason_of("min-answer-chars", "2", "ab", "b") == ("short-answer", "message 2 has 1 characters, below 2")


@pytest.mark.parametrize(
    ("step", "value"),
    [("min-turns", "2"), ("max-turns", "2"), ("min-chars", "3"), ("max-chars", "3"), ("min-answer-chars", "1")],
)
def test_limits_keep_what_is_within(step: str, value: str) -> None:
    assert run(step, value, "ab", "c") is None


def test_turns_are_not_asked_of_a_document_nor_length_of_a_tool_call() -> None:
    document = [("text", "a")]
    assert make_cleaner(OFF | {"min-turns": "2"})(document, orjson.dumps((document, None))) is None
    call = [("user", "a"), ("assistant", "", None, (("1", "find", "{}"),))]
    assert make_cleaner(OFF | {"min-answer-chars": "2"})(call, orjson.dumps((call, None))) is None


def test_limits_are_of_what_is_left_after_mending() -> None:
    messages = [("user", "a"), ("assistant", "b"), ("user", "c")]
    clean = make_cleaner(OFF | {"last-role": "fix", "min-turns": "3"})
    with pytest.raises(TurnedAway, match="2 messages of user and assistant, below 3"):
        clean(messages, orjson.dumps((messages, None)))


def test_a_loop_is_repetitive_in_english_and_chinese() -> None:
    assert reason_of("repetition", "0.5", "Who?", "I am " * 50) == (
        "repetitive",
        "98% of message 2 repeats itself, above 50%",
    )
    assert reason_of("repetition", "0.5", "你好", "我很好，你呢？" * 20)[0] == "repetitive"


def test_the_repeated_share_counts_each_character_once() -> None:
    ten = "one two three four five six seven eight nine ten"
    assert repeated_share(ten) == 0.0
    assert repeated_share(f"{ten} {ten}") == 0.5
    assert repeated_share("甲乙丙丁戊己庚辛壬癸" * 4) == 0.75
    assert repeated_share("") == 0.0


def test_prose_and_repeated_code_are_not_repetitive() -> None:
    code = "```\n" + "x = 1 + 2 + 3 + 4 + 5 + 6\n" * 20 + "```"
    assert run("repetition", "0.3", "Why?", f"Rice needs twice its volume of water. {code}") is None


GERMAN = "Ich möchte gern wissen, wie man am besten Brot backt, ohne dass es trocken wird."
ENGLISH = "I should like to know how to bake bread so that it does not become too dry."
CHINESE = "我想知道怎样烤面包才不会太干，请你告诉我具体的步骤和时间。"


def test_other_languages_are_turned_away() -> None:
    assert reason_of("languages", "en,zh", GERMAN, GERMAN) == ("other-language", "the text is in de, not in en or zh")
    assert reason_of("languages", "zh", "Ok?", ENGLISH) == ("other-language", "the text is in en, not in zh")


@pytest.mark.parametrize(
    "texts", [(CHINESE, ENGLISH), (GERMAN, ENGLISH), ("12345", "67890"), ("Ja?", "Nein."), ("", "")]
)
def test_languages_keep_what_may_be_wanted(texts: tuple[str, str]) -> None:
    assert run("languages", "en,zh", *texts) is None
