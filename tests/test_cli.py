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


QUESTION = '{"question": "Is the kiln hot?", "answer": "Très."}\n'


def dataprep(*arguments: str | bytes, **given) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "dataprep.cli", *arguments], capture_output=True, encoding="utf-8", check=False, **given
    )


def test_inputs_may_stand_on_both_sides_of_an_option(tmp_path, capsys):
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text(QUESTION.replace("Très", name), encoding="utf-8")
    first, second = str(tmp_path / "a.jsonl"), str(tmp_path / "b.jsonl")
    assert main(["normalize", first, "--out", str(tmp_path / "cache"), second]) == 0
    assert capsys.readouterr().out.split()[:4] == ["rows", "2", "kept", "2"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["normalize", "-raw.jsonl"],
            "normalize: -raw.jsonl: no such option; see dataprep normalize --help; a file of",
        ),
        (["normalize", "--bad"], "normalize: --bad: no such option; see dataprep normalize --help\n"),
        (["report", "a", "b"], "report: b: one argument too many; see dataprep report --help\n"),
    ],
)
def test_what_no_command_takes_is_named_with_what_to_do(tmp_path, monkeypatch, capsys, arguments, line):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-raw.jsonl").write_text(QUESTION, encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"dataprep: {line}")


@pytest.mark.parametrize("option", [["--out", ""], ["--mapping", ""], ["--retry", ""]])
def test_an_empty_name_is_no_folder_or_file(option, capsys):
    with pytest.raises(SystemExit):
        main(["normalize", "raw.jsonl", *option])
    assert f"argument {option[0]}: an empty name; is a variable of the shell not set?" in capsys.readouterr().err


def test_a_name_given_two_roles_is_refused(capsys):
    assert main(["normalize", "raw.jsonl", "--role", "bot=user", "--role", "bot=assistant"]) == 1
    assert capsys.readouterr().err == "dataprep: --role bot=assistant: bot is given as user, too; leave one out\n"


def test_a_name_with_a_newline_or_an_escape_in_it_stays_on_one_line(tmp_path, capsys):
    name = f"{tmp_path}/a\nb\x1b[31m\u2028.jsonl"
    Path(name).write_text(QUESTION + "oops\n", encoding="utf-8")
    assert main(["normalize", f"{name}x"]) == 1
    assert capsys.readouterr().err.startswith(f"dataprep: {tmp_path}/a\\nb\\x1b[31m\\u2028.jsonlx: ")
    assert main(["normalize", name, "--out", f"{tmp_path}/cache"]) == 0
    assert "\x1b" not in capsys.readouterr().out


def test_a_terminal_of_ascii_gets_the_rest_as_escapes(tmp_path):
    raw = tmp_path / "été.jsonl"
    raw.write_text(QUESTION + "oops\n", encoding="utf-8")
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = dataprep("normalize", str(raw), "--out", str(tmp_path / "cache"), env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\xe9t\\xe9.jsonl:2: not JSON" in done.stdout


def test_closed_standard_streams_are_empty_ones(tmp_path):
    (tmp_path / "raw.jsonl").write_text(QUESTION, encoding="utf-8")
    for number, expected in ((1, 0), (2, 0)):
        command = f"exec {sys.executable} -m dataprep.cli normalize raw.jsonl {number}>&-"
        assert subprocess.run(["sh", "-c", command], cwd=tmp_path, check=False).returncode == expected
    command = f"exec {sys.executable} -m dataprep.cli normalize - 0>&-"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "dataprep: -: holds no rows; name a file with at least one\n")


def test_least_above_most_and_a_mapping_without_end_are_refused_by_their_flag(tmp_path, capsys):
    assert main(["normalize", "raw.jsonl", "--clean", "min-turns=5", "--clean", "max-turns=2"]) == 1
    assert capsys.readouterr().err.startswith("dataprep: --clean min-turns=5: above max-turns=2, so no row is kept")
    (tmp_path / "deep.toml").write_text("a = " + "[" * 5_000, encoding="utf-8")
    assert main(["normalize", "raw.jsonl", "--mapping", str(tmp_path / "deep.toml")]) == 1
    assert capsys.readouterr().err.endswith("deep.toml: nested too deep; a shape is a flat table under [[shape]]\n")
    assert main(["normalize", "raw.jsonl", "--held-out", "-"]) == 1
    assert capsys.readouterr().err.startswith("dataprep: --held-out -: standard input is for INPUT")
