"""The page of a run: what it says of one that fails and goes on, and what its charts draw."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_model import chat_examples, packed, tiny_model_dir, write_shards

from train.chat import Answer
from train.history import RUNNING
from train.load import open_shards
from train.page.charts import Chart, Line, figure, short, ticks
from train.page.page import show_certificate
from train.page.sections import _answer
from train.page.words import duration, large, table
from train.samples import choose_prompts

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

CERTIFICATE = {
    "format": "sftpack-certificate",
    "version": 1,
    "holds": True,
    "shards": "0" * 64,
    "checks": [
        {"name": "isolation", "holds": True, "difference": 0.0, "allowed": 0.0, "says": "nothing moves <others>"}
    ],
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    home = tmp_path_factory.mktemp("page")
    model = tiny_model_dir(home / "base", tiny_tokenizer_dir, tied=True)
    packs = packed(chat_examples(tiny_tokenizer_dir, 40), 256)[:8]
    write_shards(home / "cache", tiny_tokenizer_dir, str(model), packs[:6], packs[6:], seq_len=256)
    return home


def test_a_run_that_fails_leaves_a_page_that_says_why(home: Path) -> None:
    """Such a learning rate makes the second gradient no number."""
    out = home / "failed"
    flags = ["--learning-rate", "1e30", "--max-grad-norm", "1e30", "--warmup-steps", "0", "--batch-packs", "2"]
    command = [sys.executable, "-m", "train.cli", "run", "--shards", str(home / "cache"), "--out", str(out)]
    done = subprocess.run([*command, "--save-every", "0", *flags], capture_output=True, text=True, timeout=300)
    assert done.returncode == 1
    page = (out / "summary.html").read_text(encoding="utf-8")
    segments = json.loads((out / "history.json").read_text(encoding="utf-8"))
    assert len(segments) == 1
    assert segments[0]["outcome"].startswith("failed: the ")
    assert segments[0]["versions"]["torch"]
    assert "Failed: the " in page and "; lower --learning-rate" in page
    assert 'class="state failed"' in page
    assert not (out / "summary.json").exists()
    assert "://" not in page
    assert "train: the " in done.stderr


def test_a_process_that_was_killed_is_told_by_the_next(tmp_path: Path) -> None:
    import torch

    from train.history import History
    from train.launch import Ranks

    ranks = Ranks(rank=0, local_rank=0, num_ranks=2, device=torch.device("cpu"))
    first = History(tmp_path, ranks, 0)
    first.mark(40)
    second = History(tmp_path, ranks, 30)
    second.mark(60, "finished")
    assert [(each.first_step, each.last_step, each.outcome) for each in second.segments] == [
        (0, 40, "killed"),
        (30, 60, "finished"),
    ]
    assert replace(second.segments[0], outcome=RUNNING) == first.segments[0]


def test_a_certificate_that_comes_later_is_put_in_its_place(tmp_path: Path) -> None:
    page = tmp_path / "summary.html"
    page.write_text(f"<p>a</p><!-- certificate of {'0' * 64} -->none<!-- end --><p>b</p>", encoding="utf-8")
    for _ in range(2):
        show_certificate(page, CERTIFICATE)
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<p>a</p><!-- certificate of 0") and text.endswith("<!-- end --><p>b</p>")
    assert text.count("Every check holds.") == 1
    assert "nothing moves &lt;others&gt;" in text
    show_certificate(page, CERTIFICATE | {"shards": "1" * 64, "holds": False})
    assert "Not every check holds, but on other shards than these." in page.read_text(encoding="utf-8")


def test_many_steps_are_drawn_as_means_with_the_range_behind_them() -> None:
    points = [(step, 2.0 + (step % 2)) for step in range(1, 1201)]
    drawn = figure(Chart(title="Loss", lines=[Line(name="training", kind="a", points=points)], last_step=1200))
    line = drawn.partition('class="line a" points="')[2].partition('"')[0]
    assert len(line.split()) == 300
    assert 'class="band a"' in drawn
    assert '"points":[[4,2.5],[8,2.5]' in drawn.replace("&quot;", '"')


def test_a_spike_makes_the_scale_logarithmic_and_what_is_no_number_is_left_out() -> None:
    points = [(1, 1.0), (2, 1.2), (3, float("nan")), (4, 400.0), (5, 0.9)]
    drawn = figure(Chart(title="Norm", lines=[Line(name="n", kind="a", points=points)], last_step=5, from_zero=True))
    assert [text.partition("<")[0] for text in drawn.split('text-anchor="end">')[1:]] == ["1", "10", "100"]
    assert "nan" not in drawn
    assert figure(Chart(title="None", lines=[Line(name="n", kind="a", points=[])], last_step=5)) == ""


def test_numbers_are_written_short() -> None:
    assert [short(value) for value in (0, 1.2e-5, 0.25, 1234.5, 19_250, 2.5e6)] == [
        "0",
        "1.2e-5",
        "0.25",
        "1,234",
        "19.2k",
        "2.5M",
    ]
    assert ticks(0.12, 1.03) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert [duration(each) for each in (9, 90, 3700)] == ["9 s", "1 min 30 s", "1 h 1 min"]
    assert [large(each) for each in (12_345, 596_049_920, 4_022_468_096)] == ["12,345", "596 million", "4.02 billion"]


def test_what_a_model_says_is_escaped_and_its_control_characters_are_shown() -> None:
    drawn = _answer(Answer(thinking="a < b", text="one\n\0<two>"))
    assert "<pre>a &lt; b</pre>" in drawn
    assert '<div class="text">one\n\ufffd&lt;two&gt;</div>' in drawn


def test_tables_escape_what_stands_in_them() -> None:
    drawn = table(("source", "tokens", "file"), [("<b>", 1200, "a&b")])
    assert "<th>&lt;b&gt;</th><td>1,200</td>" in drawn
    assert '<td class="text">a&amp;b</td>' in drawn


def test_prompts_are_held_out_examples_up_to_their_first_target(home: Path) -> None:
    shards = open_shards(home / "cache")
    assert shards.val is not None
    prompts = choose_prompts(shards)
    first = shards.val[0]
    start = int(first.is_target.argmax())
    assert len(prompts) == 4
    assert prompts[0].ids == first.input_ids[:start].tolist()
    length = len(prompts[0].expected)
    assert prompts[0].expected == first.input_ids[start : start + length].tolist()
    assert (
        first.is_target[start : start + length].all() and not first.is_target[start + length : start + length + 1].any()
    )
