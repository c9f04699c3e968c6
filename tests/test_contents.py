"""What templates ask of texts, answered for all texts at once as Python answers for each."""

import sys

import numpy as np
import pyarrow as pa
import pytest

from dataprep.core.contents import BLANKS, Contents
from dataprep.core.trace import Question, Slot

TEXTS = ["<b>Hi", "", "Hi\n", "\u3000茶", "茶。", " ", "a</b", ">b", "茶\u2003", "\x1cx\x85", "🌱\n", "<b>", "\n\n<b>x"]


def asked(method: str, *arguments: str) -> list[bool]:
    """The answers of all texts but the first and the last, as a part of a larger array."""
    contents = Contents(pa.array(["<b>", *TEXTS, "<b>"]).slice(1, len(TEXTS)))
    places = np.arange(len(TEXTS))
    answers = Question(Slot(0, "content"), method, arguments).answers(contents, places, places + 1)
    assert isinstance(answers, np.ndarray)
    return answers.tolist()


def test_blanks_are_what_python_strips() -> None:
    assert set(BLANKS) == {char for char in map(chr, range(sys.maxunicode + 1)) if char.isspace()}


@pytest.mark.parametrize("method", ["strip", "lstrip", "rstrip"])
@pytest.mark.parametrize("arguments", [(), ("\n",), ("\u3000。x",), ("",), (" \n",)])
def test_stripping_is_told_from_the_ends_of_the_bytes(method: str, arguments: tuple[str, ...]) -> None:
    assert asked("changed", method, *arguments) == [getattr(text, method)(*arguments) != text for text in TEXTS]


@pytest.mark.parametrize("part", ["", "<b>", "</b>", "b", "茶", "\n", "no such"])
def test_a_part_is_found_in_one_text_only(part: str) -> None:
    assert asked("contains", part) == [part in text for text in TEXTS]
    assert asked("startswith", part) == [text.startswith(part) for text in TEXTS]
    assert asked("endswith", part) == [text.endswith(part) for text in TEXTS]
    assert asked("equals", part) == [text == part for text in TEXTS]
    assert asked("filled") == [bool(text) for text in TEXTS]


def test_what_bytes_do_not_tell_is_asked_of_each_text() -> None:
    contents, places = Contents(pa.array(TEXTS)), np.arange(len(TEXTS))
    assert contents.answers("startswith", ("a", 1)) is None
    assert contents.answers("changed", ("strip", "🌱")) is None
    replaced = Question(Slot(0, "content"), "changed", ("replace", "<b>", "<i>"))
    assert contents.answers("changed", replaced.arguments) is None
    assert replaced.answers(contents, places, places + 1) == ["<b>" in text for text in TEXTS]
    assert Question(Slot(0, "content"), "length", ()).answers(contents, places, places + 1) == [len(t) for t in TEXTS]
    assert contents.texts(2, 5) == TEXTS[2:5]
