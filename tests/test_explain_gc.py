"""What `dataprep explain` and `dataprep gc` say of a cache, and what gc leaves alone."""

import json
import shutil
from pathlib import Path

import pytest
from corpus import many_dialogues, write_jsonl

from dataprep.cli import main
from dataprep.core.lock import locked

STRAY = ("tokens/notes.txt", "shards/mine.arrow", "conversations/part-1.parquet", "tokenizers/0123456789abcdef/mine")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    """A folder with raw.jsonl, model/ and cache/."""
    home = tmp_path_factory.mktemp("explained")
    raw = write_jsonl(home / "raw.jsonl", many_dialogues(400))
    shutil.copytree(tiny_tokenizer_dir, home / "model")
    assert main(["normalize", str(raw), "--out", str(home / "cache")]) == 0
    assert main(["tokenize", str(home / "cache"), "--model", str(home / "model"), "--seq-len", "256"]) == 0
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    for name in ("cache", "model"):
        shutil.copytree(made / name, tmp_path / name)
    capsys.readouterr()
    return tmp_path


def explained(cache: Path, capsys: pytest.CaptureFixture[str]) -> str:
    assert main(["explain", str(cache)]) == 0
    return capsys.readouterr().out


def files_in(cache: Path) -> set[str]:
    return {str(path.relative_to(cache)) for path in cache.rglob("*") if path.is_file() and path.name != ".lock"}


def test_an_untouched_cache_is_explained_on_a_screen(made, capsys):
    shown = explained(made / "cache", capsys)
    assert shown.count("\n") < 24
    assert f"{made / 'raw.jsonl'} (" in shown
    assert "as it was: not written to since" in shown
    assert "4 chunks (" in shown
    assert "nothing is tokenised: all 4 chunks of the conversations are there" in shown
    assert "with the same model and options there is nothing to do" in shown
    assert "its tokenizer files and the libraries that read them are as they were" in shown


def test_rows_that_were_added_are_explained_by_the_chunks_they_cost(home, capsys):
    cache = str(home / "cache")
    dialogues = many_dialogues(404)
    raw = write_jsonl(home / "raw.jsonl", [*dialogues[400:], *dialogues[:400]])
    assert main(["normalize", str(raw), "--out", cache]) == 0
    write_jsonl(home / "raw.jsonl", dialogues[:9])
    capsys.readouterr()
    shown = explained(home / "cache", capsys)
    assert "changed since: " in shown
    assert "gives others: 1 file has changed or gone" in shown
    assert "1 of 4 chunks (" in shown
    assert "would be tokenised anew: conversations changed since" in shown
    assert "1 chunks are of conversations that are no longer there: dataprep gc" in shown
    assert "packed anew: the conversations changed, 400 rows then and 404 now" in shown
    assert main(["tokenize", cache, "--model", str(home / "model"), "--seq-len", "256"]) == 0
    before = files_in(home / "cache")
    assert main(["gc", cache, "--yes"]) == 0
    [gone] = before - files_in(home / "cache")
    assert gone.startswith("tokens/")
    assert "of conversations that are no longer there" in capsys.readouterr().out


def test_gc_names_what_it_would_remove_and_removes_it_only_when_told(home, capsys):
    cache, model = home / "cache", str(home / "model")
    assert main(["tokenize", str(cache), "--model", model, "--seq-len", "256", "--thinking", "drop"]) == 0
    shutil.copytree(next((cache / "tokenizers").iterdir()), cache / "tokenizers" / "0123456789abcdef")
    for name in STRAY:
        (cache / name).write_text("the user's own", encoding="utf-8")
    used = files_in(cache)
    for name in (
        "shards/train-00007-01234567.arrow",
        "conversations/part-00001-01234567.parquet",
        "shards/.train-00000-01234567.arrow.4711.tmp",
    ):
        (cache / name).write_text("left", encoding="utf-8")
    everything = files_in(cache)
    capsys.readouterr()
    assert main(["gc", str(cache)]) == 0
    shown = capsys.readouterr().out
    assert "5  " in shown  # four chunks and their manifest
    assert "made with another tokenizer, template or other options than the shards" in shown
    assert "of a tokenizer that the shards don't use" in shown
    assert shown.endswith("nothing was removed; --yes removes them\n")
    assert files_in(cache) == everything
    assert main(["gc", str(cache), "--yes"]) == 0
    left = files_in(cache)
    assert set(STRAY) <= left <= used
    assert len(list((cache / "tokens").glob("*/*.arrow"))) == 4
    capsys.readouterr()
    assert main(["tokenize", str(cache), "--model", model, "--seq-len", "256", "--thinking", "drop"]) == 0
    assert "up to date, nothing to do" in capsys.readouterr().out
    assert main(["gc", str(cache)]) == 0
    assert capsys.readouterr().out == f"{cache}: nothing to remove; all that is known is in use\n"


def test_gc_keeps_what_it_can_not_read_and_waits_for_no_run(home, capsys):
    cache = home / "cache"
    path = cache / "shards" / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    before = files_in(cache)
    assert main(["gc", str(cache), "--yes"]) == 0
    shown = capsys.readouterr().out
    assert "shards/: kept as it is: " in shown
    assert "version is 99" in shown
    assert "tokens/ and tokenizers/: kept, since no shards tell which of them are in use" in shown
    assert files_in(cache) == before
    with locked(cache):
        assert main(["gc", str(cache), "--yes"]) == 1
    assert "is writing to it; wait for it to end" in capsys.readouterr().err
    assert main(["gc", str(home / "none")]) == 1
    assert "no cache here; name the folder that" in capsys.readouterr().err
