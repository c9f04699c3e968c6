"""What runs do again, in numbers: only what has changed; and two runs at once do each other no harm."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa
import pytest
from corpus import many_dialogues, write_jsonl

from dataprep.core.chunks import find_chunks, id_digits
from dataprep.normalize.run import normalize_corpus
from dataprep.tokenize.recipe import read_recipe
from dataprep.tokenize.run import Built, tokenize_corpus
from dataprep.verify.cache import verify_cache
from schemas.manifest import PackOptions, TokenOptions

OPTIONS = PackOptions(seq_len=256, overflow="cut", val_fraction=0.0, seed=0)
ROWS = 600


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    """A folder with raw.jsonl, model/ and cache/."""
    home = tmp_path_factory.mktemp("never-twice")
    raw = write_jsonl(home / "raw.jsonl", many_dialogues(ROWS))
    shutil.copytree(tiny_tokenizer_dir, home / "model")
    normalize_corpus([str(raw)], home / "cache", workers=1)
    assert tokenize_corpus(home / "cache", str(home / "model"), OPTIONS, workers=1).tokenized == ROWS
    return home


@pytest.fixture
def home(made: Path, tmp_path: Path) -> Path:
    """A copy to work on; the model stays where it is named."""
    for name in ("cache", "model"):
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


def again(home: Path, options: PackOptions = OPTIONS, **given) -> Built:
    return tokenize_corpus(home / "cache", str(home / "model"), options, workers=1, **given)


def ids(count: int, name: str = "") -> list[str]:
    return [blake2b(f"{name}{number}".encode(), digest_size=16).hexdigest() for number in range(count)]


@pytest.mark.parametrize(
    ("rows", "anew"),
    [
        (ids(20_000) + ids(200, "more"), 1),  # 1% appended
        (ids(20_000)[:10_000] + ids(1, "one") + ids(20_000)[10_000:], 1),
        (ids(20_000)[:10_000] + ids(20_000)[10_001:], 1),
        (ids(20_000)[:10_000] + ids(200, "more") + ids(20_000)[10_000:], 2),
        (ids(20_000)[1:], 1),
        (ids(20_000), 0),
    ],
)
def test_rows_that_come_or_go_change_the_chunks_around_them_alone(rows, anew):
    before, after = (
        [chunk.key for chunk in find_chunks(id_digits(pa.chunked_array([r])))] for r in (ids(20_000), rows)
    )
    assert sum(key not in before for key in after) == anew
    assert anew / len(after) < 0.02


def test_the_same_again_is_nothing_to_do(home):
    tokenize_corpus(home / "cache", str(home / "model"), OPTIONS)
    result = again(home)
    assert (result.tokenized, result.up_to_date) == (0, True)


def test_another_packing_split_or_mixture_tokenizes_nothing(home):
    (home / "recipe.toml").write_text("[sources.raw]\nweight = 0.5\n", encoding="utf-8")
    for options in (
        replace(OPTIONS, seq_len=512),
        replace(OPTIONS, seed=1),
        replace(OPTIONS, val_fraction=0.1),
        replace(OPTIONS, overflow="split"),
    ):
        result = again(home, options)
        assert (result.tokenized, result.up_to_date) == (0, False)
    assert again(home, recipe=read_recipe(home / "recipe.toml")).tokenized == 0


def test_files_of_a_model_that_decide_nothing_change_nothing(home):
    again(home)
    (home / "model" / "generation_config.json").write_text('{"temperature": 0.7}', encoding="utf-8")
    (home / "model" / "README.md").write_text("Tuned.", encoding="utf-8")
    assert again(home).up_to_date
    path = home / "model" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_max_length": 77}), encoding="utf-8")
    result = again(home)
    assert result.tokenized == 0


@pytest.mark.parametrize("what", ["template", "tokenizer", "option"])
def test_another_template_tokenizer_or_option_tokenizes_all_anew_and_what_was_there_stays(home, what):
    given = {}
    chunks = {path: path.stat().st_mtime_ns for path in home.glob("cache/tokens/*/*.arrow")}
    if what == "template":
        path = home / "model" / "chat_template.jinja"
        path.write_text(path.read_text(encoding="utf-8") + "{# other #}", encoding="utf-8")
    elif what == "tokenizer":
        path = home / "model" / "tokenizer.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        record["model"]["merges"].pop()
        path.write_text(json.dumps(record), encoding="utf-8")
    else:
        given["token_options"] = TokenOptions(thinking="drop")
    assert again(home, **given).tokenized == ROWS
    assert {path: path.stat().st_mtime_ns for path in chunks} == chunks
    assert len(list(home.glob("cache/tokens/*"))) == 2


def test_rows_of_a_further_file_cost_their_chunks_alone(home, made):
    more = write_jsonl(home / "more.jsonl", many_dialogues(ROWS + 6)[ROWS:])
    normalize_corpus([str(made / "raw.jsonl"), str(more)], home / "cache", workers=1)
    assert 6 <= again(home).tokenized < 200
    assert verify_cache(home / "cache", 20).sound


@pytest.mark.parametrize(
    "pair",
    [
        ("tokenize --seq-len 128", "tokenize --seq-len 128"),
        ("tokenize --seq-len 128 --thinking drop", "tokenize --seq-len 512"),
        ("tokenize --thinking drop", "normalize"),
        ("tokenize --thinking drop", "gc --yes"),
    ],
)
def test_two_runs_at_once_both_end_right_or_one_says_that_the_other_writes(home, made, pair):
    lines = [[sys.executable, "-m", "dataprep.start", *_arguments(text, home, made)] for text in pair]
    runs = [subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) for line in lines]
    errors = [run.communicate(timeout=120)[1] for run in runs]
    codes = [run.returncode for run in runs]
    assert 0 in codes, errors
    for code, error in zip(codes, errors, strict=True):
        assert code == 0 or (error.count("\n") == 1 and "is writing to it; wait for it to end" in error)
    for line, code in zip(lines, codes, strict=True):
        if code:
            assert subprocess.run(line, stdout=subprocess.DEVNULL).returncode == 0
    again(home)
    assert verify_cache(home / "cache", 20).problems == []


def _arguments(text: str, home: Path, made: Path) -> list[str]:
    command, *options = text.split()
    if command == "normalize":
        return ["normalize", str(made / "raw.jsonl"), "--out", str(home / "cache")]
    model = ["--model", str(home / "model")] if command == "tokenize" else []
    return [command, str(home / "cache"), *model, *options]
