import os
import subprocess
import sys
from pathlib import Path

import pytest
from corpus import many_dialogues, write_jsonl

from dataprep.cli import main
from dataprep.stages.normalize.convert import FORMATS


@pytest.fixture(scope="module")
def cache(tmp_path_factory, tiny_tokenizer_dir) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    raw = write_jsonl(folder / "raw.jsonl", many_dialogues(30))
    assert main(["normalize", str(raw), "--out", str(folder / "cache")]) == 0
    assert main(["tokenize", str(folder / "cache"), "--model", str(tiny_tokenizer_dir), "--seq-len", "256"]) == 0
    return folder / "cache"


def test_inspect_shows_targets_and_context(cache, capsys):
    assert main(["inspect", str(cache), "--pack", "1"]) == 0
    shown = capsys.readouterr().out
    assert "targets stand in ⟦ ⟧" in shown
    assert "⟦Answer 1: water it" in shown
    assert "<|im_end|>⟧" in shown
    assert "⟦Question" not in shown


def test_inspect_finds_a_conversation_and_shows_ids(cache, capsys):
    assert main(["inspect", str(cache), "--conversation", "7", "--ids"]) == 0
    shown = capsys.readouterr().out
    assert "conversation 7 (" in shown
    assert ":'<|im_start|>'" in shown


def test_verify_says_that_nothing_is_wrong(cache, capsys):
    assert main(["verify", str(cache)]) == 0
    assert capsys.readouterr().out.endswith("verified: nothing is wrong\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inspect", "{cache}", "--pack", "999"], "--pack 999: train holds packs 0 to"),
        (["inspect", "{cache}", "--split", "val"], "--split val: the shards hold train"),
        (["inspect", "{cache}", "--conversation", "zz"], "no such row (0 to 29) and no id begins so"),
        (["tokenize", "{cache}", "--model", "x", "--seq-len", "4"], "--seq-len 4: must be 8 or more"),
        (["tokenize", "{cache}", "--model", "x", "--val-fraction", "1"], "--val-fraction 1.0: must be in [0, 1)"),
        (["tokenize", "{cache}/none", "--model", "x"], "no conversations here yet; run: dataprep normalize INPUT"),
        (["verify", "{cache}/none"], "no conversations here yet"),
        (["normalize", "{cache}/none.jsonl"], "none.jsonl"),
        (["normalize", "{cache}", "--role", "bot"], "--role bot: expected NAME=ROLE"),
    ],
)
def test_a_mistake_is_one_line_that_says_what_to_do(cache, capsys, arguments, message):
    assert main([argument.format(cache=cache) for argument in arguments]) == 1
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("dataprep: ")
    assert message in captured.err


def test_an_unknown_model_without_a_hub_is_an_error_at_once(cache):
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(cache / "no-hub")}
    command = [sys.executable, "-m", "dataprep.cli", "tokenize", str(cache), "--model", "nobody/nothing"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1
    assert (
        "nobody/nothing: neither a local folder nor downloaded before, and the model hub is out of reach" in done.stderr
    )
    assert done.stderr.count("\n") == 1


def test_formats_shows_a_row_of_each_format_on_one_screen(capsys):
    assert main(["formats"]) == 0
    shown = capsys.readouterr().out
    assert 'question-answer  {"question": "Hello", "answer": "Hi"}\n' in shown
    assert [line.split()[0] for line in shown.splitlines() if line[0] != " "] == list(FORMATS)
    assert max(map(len, shown.splitlines())) <= 120


def test_every_command_shows_help_with_an_example_on_one_screen(capsys):
    for command in ([], ["normalize"], ["formats"], ["tokenize"], ["inspect"], ["verify"]):
        with pytest.raises(SystemExit):
            main([*command, "--help"])
        shown = capsys.readouterr().out
        assert shown.count("\n") <= 40
        assert "dataprep " in shown.rsplit("\n\n", 1)[1]
