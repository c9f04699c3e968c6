"""One flipped bit in each artefact of a cache: verify names the file, and the next run makes it anew, and no other."""

import resource
import shutil
from pathlib import Path

import pytest
from corpus import many_dialogues, write_jsonl

from dataprep.cli import main
from dataprep.core.tokenizer import load_tokenizer
from dataprep.normalize.run import normalize_corpus
from dataprep.tokenize.run import tokenize_corpus
from dataprep.verify.cache import verify_cache
from schemas.errors import CacheError
from schemas.manifest import PackOptions

OPTIONS = PackOptions(seq_len=256, overflow="cut", val_fraction=0.1, seed=0)
FIRST_OF = {
    "part": "conversations/part-*",
    "quarantine": "conversations/quarantine-*",
    "conversations' manifest": "conversations/manifest.json",
    "chunk": "tokens/*/*.arrow",
    "tokens' manifest": "tokens/*/manifest.json",
    "shard": "shards/val-*.arrow",
    "shards' manifest": "shards/manifest.json",
    "tokenizer": "shards/tokenizer-*/tokenizer.json",
    "kept tokenizer": "tokenizers/*/files/tokenizer.json",
    "encoder's proof": "tokenizers/*/bundle.json",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer_dir: Path) -> Path:
    home = tmp_path_factory.mktemp("flipped")
    raw = write_jsonl(home / "raw.jsonl", many_dialogues(300))
    with raw.open("a", encoding="utf-8") as file:
        file.write("no row\n")
    normalize_corpus([str(raw)], home / "cache", workers=1)
    tokenize_corpus(home / "cache", str(tiny_tokenizer_dir), OPTIONS, workers=1)
    return home


def files_in(cache: Path) -> dict[str, bytes]:
    return {str(p.relative_to(cache)): p.read_bytes() for p in cache.rglob("*") if p.is_file() and p.name != ".lock"}


@pytest.mark.parametrize("kind", FIRST_OF)
def test_a_flipped_bit_is_named_and_mended_by_the_next_run(made, tmp_path, tiny_tokenizer_dir, kind):
    cache = Path(shutil.copytree(made / "cache", tmp_path / "cache"))
    tokenize_corpus(cache, str(tiny_tokenizer_dir), OPTIONS, workers=1)
    before = files_in(cache)
    path = sorted(cache.glob(FIRST_OF[kind]))[0]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    times = {other: other.stat().st_mtime_ns for other in cache.rglob("*.arrow")}
    try:
        problems = verify_cache(cache, 1).problems
    except CacheError as error:
        problems = [str(error)]
    named = path.parents[1] if kind == "kept tokenizer" else path.parent if "tokenizers" in path.parts else path
    assert any(str(named) in problem for problem in problems), problems
    if path.parent.name == "conversations":
        assert "run `dataprep normalize` again" in problems[0]
        if kind == "part":
            with pytest.raises(CacheError, match="its checksum is not the manifest's; run `dataprep normalize` again"):
                tokenize_corpus(cache, str(tiny_tokenizer_dir), OPTIONS, workers=1)
        normalize_corpus([str(made / "raw.jsonl")], cache, workers=1)
    again = tokenize_corpus(cache, str(tiny_tokenizer_dir), OPTIONS, workers=1)
    assert (0 < again.tokenized < 300) if kind == "chunk" else again.tokenized == 0
    differing = {name for name, data in files_in(cache).items() if before.get(name) != data}
    assert differing <= {f"tokenizers/{p.parent.name}/{p.name}" for p in cache.glob("tokenizers/*/bundle.json")}
    assert files_in(cache).keys() == before.keys()
    rewritten = {other for other, at in times.items() if other.stat().st_mtime_ns != at}
    assert rewritten <= {path} or kind == "shards' manifest"
    assert verify_cache(cache, 1).problems == []


def test_a_bit_of_a_chunk_never_gets_into_new_shards(made, tmp_path, tiny_tokenizer_dir):
    caches = [Path(shutil.copytree(made / "cache", tmp_path / name)) for name in ("calm", "flipped")]
    path = next(caches[1].glob("tokens/*/*.arrow"))
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 4
    path.write_bytes(content)
    for cache in caches:
        assert main(["tokenize", str(cache), "--model", str(tiny_tokenizer_dir), "--seq-len", "512"]) == 0
    calm, flipped = (files_in(cache / "shards") for cache in caches)
    assert flipped == calm


@pytest.mark.parametrize("kind", ["part", "conversations' manifest", "shard", "shards' manifest", "tokenizer"])
def test_a_folder_in_a_files_place_is_named_and_never_removed(made, tmp_path, tiny_tokenizer_dir, kind, capsys):
    cache = Path(shutil.copytree(made / "cache", tmp_path / "cache"))
    path = sorted(cache.glob(FIRST_OF[kind]))[0]
    path.unlink()
    path.mkdir()
    runs = [["normalize", str(made / "raw.jsonl"), "--out", str(cache)]]
    runs += [["tokenize", str(cache), "--model", str(tiny_tokenizer_dir), "--seq-len", "256", "--val-fraction", "0.1"]]
    assert main([*runs["conversations" not in FIRST_OF[kind]], "--workers", "1"]) == 1
    said = capsys.readouterr().err
    assert str(path) in said
    assert "remove" in said
    path.rmdir()
    assert [main([*run, "--workers", "1"]) for run in runs] == [0, 0]
    assert files_in(cache).keys() == files_in(made / "cache").keys()


def test_what_a_tokenizer_left_in_a_cache_is_the_same_wherever_the_cache_is(made, tmp_path, tiny_tokenizer_dir):
    cache = Path(shutil.copytree(made / "cache", tmp_path / "cache"))
    shutil.rmtree(cache / "tokenizers")
    tokenize_corpus(cache, str(tiny_tokenizer_dir), OPTIONS, workers=1)
    assert files_in(cache) == files_in(made / "cache")


def test_a_tokenizer_that_cannot_be_kept_is_told_in_one_line_and_leaves_nothing(tmp_path, tiny_tokenizer_dir):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, hard))  # what a full disk does: the file can't grow
    try:
        with pytest.raises(CacheError, match=r"tokenizers/.*: cannot be written: .*; free space there"):
            load_tokenizer(str(tiny_tokenizer_dir), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert load_tokenizer(str(tiny_tokenizer_dir), tmp_path).vocab_size > 0
