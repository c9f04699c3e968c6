"""Answers: thinking apart, two models side by side."""

from pathlib import Path

import pytest
from tiny_model import tiny_model_dir

from train.chat import Answer, side_by_side, split_thinking
from train.cli import main

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Paris.", Answer(thinking=None, text="Paris.")),
        ("<think>\nFrance…\n</think>\n\nParis.", Answer(thinking="France…", text="Paris.")),
        ("<think>\n\n</think>\n\nParis.", Answer(thinking=None, text="Paris.")),
        ("France…</think>Paris.", Answer(thinking="France…", text="Paris.")),
        ("<think>France, so", Answer(thinking="France, so", text="")),
    ],
)
def test_thinking_is_parted_from_the_answer(text: str, answer: Answer) -> None:
    assert split_thinking(text) == answer


def test_two_answers_stand_side_by_side() -> None:
    assert side_by_side("one two three", "四五六七八九\nten", 23).splitlines() == [
        "one two    | 四五六七八",
        "three      | 九",
        "           | ten",
    ]


def test_a_model_answers_alone_and_beside_its_base(
    tmp_path: Path, tiny_tokenizer_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    folder = tiny_model_dir(run / "model", tiny_tokenizer_dir)
    arguments = ["--prompt", "Hello", "你好", "--max-tokens", "4"]
    assert main(["chat", "--model", str(run), *arguments]) == 0
    alone = capsys.readouterr().out
    assert [line for line in alone.splitlines() if line.startswith("> ")] == ["> Hello", "> 你好"]
    assert main(["chat", "--model", str(run), "--base", str(folder), *arguments]) == 0
    both = capsys.readouterr().out
    assert both.count(f"[{run}]") == both.count(f"[{folder}]") == 2
