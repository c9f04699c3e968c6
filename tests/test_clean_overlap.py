"""Contamination: what counts as held-out text, and which conversations repeat it."""

import numpy as np
import orjson
import pytest

from dataprep.core.grams import find_tokens, run_hashes
from dataprep.stages.clean.cleaned import Cleaned
from dataprep.stages.clean.overlap import compared_texts, held_out_hashes, make_overlap, ngram_hashes
from dataprep.stages.normalize.message import Message, rich_message
from dataprep.stages.normalize.reasons import FIXES, TurnedAway

QUESTION = "A farmer keeps nine geese and four goats in a barn; how many legs walk out when the door is opened at dawn?"
FRAGE = "某农场主养了九只鹅和四只山羊，清晨打开谷仓大门时，一共有多少条腿走出来？请写出计算过程。"


def clean(messages: list[Message], held_out: list[str], share: float = 0.2) -> Cleaned | None:
    return make_overlap(held_out_hashes(held_out), share)(messages, orjson.dumps((messages, None)))


def condemned(text: str, held_out: list[str], share: float = 0.2) -> str:
    with pytest.raises(TurnedAway) as caught:
        clean([("user", text), ("assistant", "Thirty-four.")], held_out, share)
    assert caught.value.reason == "contaminated" and caught.value.fix == FIXES["contaminated"]
    return caught.value.detail


def kept(text: str, held_out: list[str], share: float = 0.2) -> bool:
    return clean([("user", text), ("assistant", "Thirty-four.")], held_out, share) is None


def words(first: int, stop: int) -> str:
    return " ".join(f"word{number}" for number in range(first, stop))


def test_a_question_that_is_held_out_is_found_whatever_its_case_and_punctuation() -> None:
    detail = condemned(QUESTION.upper().replace(";", " --").replace(" ", "\n"), [QUESTION])
    assert detail == (
        "100% of the 23 words or characters of a message stand in held-out text, "
        "from 'A\\nFARMER\\nKEEPS\\nNINE\\nGEESE\\nAND\\nFOUR\\nGOATS\\nIN\\nA\\nBA… on"
    )


def test_a_chinese_question_is_found_within_a_longer_message() -> None:
    detail = condemned("老师您好，想请教一道题：" + FRAGE + "谢谢！", [FRAGE])
    assert detail.startswith(
        "77% of the 52 words or characters of a message stand in held-out text, from '某农场主养了九只鹅"
    )


@pytest.mark.parametrize("text", [QUESTION, FRAGE])
def test_other_text_is_kept(text: str) -> None:
    assert kept("What do geese and goats eat in the winter, and do they get along in one barn?", [text])
    assert kept("鹅和山羊冬天吃什么？它们能在同一个谷仓里和睦相处吗？", [text])
    assert kept("", [text]) and kept("👍", [text])


def test_thirteen_words_in_common_make_a_gram_and_twelve_do_not() -> None:
    held_out = [words(0, 40)]
    assert kept("before " + words(5, 17) + " after", held_out, share=0)
    assert condemned("before " + words(5, 18) + " after", held_out, share=0).startswith(
        "87% of the 15 words or characters"
    )


def test_twenty_tokens_in_common_make_a_gram_of_chinese() -> None:
    text = "春江潮水连海平海上明月共潮生滟滟随波千万里何处春江无月明江流宛转绕芳甸"
    assert kept("问" + text[3:22] + "答", [text], share=0)
    assert condemned("问" + text[3:23] + "答", [text], share=0).startswith("91% of the 22 words or characters")


def test_a_quotation_in_a_long_message_is_kept_below_a_fifth_of_it() -> None:
    held_out = [words(0, 20)]
    assert kept(words(100, 181) + " " + words(0, 20), held_out)
    assert condemned(words(100, 180) + " " + words(0, 20), held_out).startswith("20% of the 100 words or characters")


def test_a_short_message_is_held_out_as_a_whole() -> None:
    short = "Who wrote the play about the Danish prince?"
    assert condemned(short.lower(), [short]).startswith("100% of the 8 words or characters")
    assert kept(short + " And when?", [short])
    assert len(ngram_hashes("Who wrote the play about Danish princes?")) == 0
    assert len(ngram_hashes("三角形的内角和是多少度呢请回答")) == 1
    assert len(ngram_hashes("三角形的内角和是多少度")) == 0


def test_grams_of_more_than_ten_held_out_texts_are_boilerplate() -> None:
    instruction = "Answer the question below with one letter and explain in two sentences why it is the right one"
    ten = [f"{instruction}. {words(100 * n, 100 * n + 20)}" for n in range(10)]
    eleven = [*ten, f"{instruction}. {words(2000, 2020)}"]
    assert condemned(instruction, ten)
    assert kept(instruction, eleven)
    assert condemned(eleven[10], eleven)


def test_equal_held_out_texts_count_once() -> None:
    assert condemned(QUESTION, [QUESTION] * 50)


def test_user_assistant_reasoning_and_documents_are_compared_and_systems_and_tools_are_not() -> None:
    messages = [
        ("system", "s"),
        ("user", "u"),
        rich_message("assistant", "a", reasoning="r"),
        ("tool", "t"),
        ("text", "d"),
    ]
    assert compared_texts(messages) == ["u", "a", "r", "d"]
    asked: list[Message] = [("user", "Go on.")]
    with pytest.raises(TurnedAway):
        clean([*asked, rich_message("assistant", "34", reasoning=QUESTION)], [QUESTION])
    assert clean([("system", QUESTION), *asked, ("assistant", "34")], [QUESTION]) is None


def test_grams_do_not_cross_messages() -> None:
    half = " ".join(QUESTION.split()[:12]), " ".join(QUESTION.split()[12:])
    assert clean([("user", half[0]), ("assistant", half[1])], [QUESTION], share=0) is None


def test_nothing_held_out_condemns_nothing() -> None:
    assert held_out_hashes([]).dtype == np.uint64
    assert kept(QUESTION, []) and kept(QUESTION, ["too short"])


def test_held_out_hashes_are_the_sorted_grams_of_all_texts() -> None:
    hashes = held_out_hashes(iter([QUESTION, FRAGE, QUESTION]))
    assert (np.diff(hashes.astype(object)) > 0).all()
    assert set(hashes.tolist()) == set(ngram_hashes(QUESTION).tolist()) | set(ngram_hashes(FRAGE).tolist())
    many = [f"{words(30 * n, 30 * n + 30)}" for n in range(600)]
    assert len(held_out_hashes(many)) == 600 * 18


def test_tokens_are_words_and_single_characters_of_scripts_without_spaces() -> None:
    texts = ["Hello, wörld! 你好Ab1", "", "naïve ไทย 한국 नमस्ते", "😀\ud800 x"]
    tokens = find_tokens(texts)
    joined = "\n".join(texts)
    assert [joined[start] for start in tokens.starts] == list("Hw你好Anไทย한नx")
    assert tokens.offsets.tolist() == [0, 5, 5, 11, 12]
    assert tokens.characters.tolist() == [False, False, True, True, False, False, True, True, True, False, False, False]


def test_equal_tokens_hash_equally_wherever_they_stand_and_runs_keep_their_bounds() -> None:
    hashes = find_tokens(["ab c Ab C", "ac b abc"]).hashes.tolist()
    ab, c, again_ab, again_c, ac, b, abc = hashes
    assert (ab, c) == (again_ab, again_c) and len({ab, c, ac, b, abc}) == 5
    runs = run_hashes(np.array(hashes, dtype=np.uint64), np.array([0, 2, 4, 1]), np.array([2, 4, 6, 3]))
    assert runs[0] == runs[1] and len(set(runs.tolist())) == 3
