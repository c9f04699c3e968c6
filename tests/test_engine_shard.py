import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from corpus import many_dialogues, write_jsonl

from dataprep.core.chunks import Chunk
from dataprep.core.lock import locked
from dataprep.normalize.run import normalize_corpus
from dataprep.tokenize.part import Part, parsed_part, part_summary, tokenize_part
from dataprep.tokenize.run import tokenize_corpus
from schemas.errors import CacheError, InputError
from schemas.manifest import PackOptions

OPTIONS = PackOptions(seq_len=256, overflow="cut", val_fraction=0.0, seed=0)


@pytest.fixture(scope="module")
def normalized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("normalized")
    normalize_corpus([str(write_jsonl(folder / "raw.jsonl", many_dialogues(3_000)))], folder / "cache", workers=1)
    return folder / "cache"


@pytest.fixture
def cache(tmp_path: Path, normalized: Path) -> Path:
    return Path(shutil.copytree(normalized, tmp_path / "cache"))


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*.arrow"))}


def test_parts_are_disjoint_and_together_all():
    chunks = [Chunk(start=start, stop=start + 100, key=f"{start:032x}") for start in range(0, 20_000, 100)]
    for count in (1, 2, 3, 7):
        parts = [Part(number=number, count=count).of(chunks) for number in range(1, count + 1)]
        assert sorted((chunk for part in parts for chunk in part), key=lambda chunk: chunk.start) == chunks
        sizes = [sum(chunk.stop - chunk.start for chunk in part) for part in parts]
        assert max(sizes) - min(sizes) <= 1_100


def test_parts_that_run_at_once_make_what_one_run_makes_and_a_plain_run_packs_it(cache, tmp_path, tiny_tokenizer_dir):
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "conversations").symlink_to(cache / "conversations")
    tokenize_corpus(whole, str(tiny_tokenizer_dir), OPTIONS, workers=1)
    shutil.copytree(whole / "tokenizers", cache / "tokenizers")  # which takes longer to read than all else here
    command = [sys.executable, "-m", "dataprep.cli", "tokenize", str(cache), "--model", str(tiny_tokenizer_dir)]
    parts = [
        subprocess.Popen([*command, "--shard", which], stdout=subprocess.PIPE, text=True) for which in ("1/2", "2/2")
    ]
    outputs = [part.communicate()[0] for part in parts]
    assert [part.returncode for part in parts] == [0, 0]
    made = [int(re.search(r"part \d of 2: ([\d,]+) conversations", text)[1].replace(",", "")) for text in outputs]
    assert sum(made) == 3_000
    assert not (cache / "shards").exists()
    assert not [path.name for path in cache.rglob(".*.tmp")]
    built = tokenize_corpus(cache, str(tiny_tokenizer_dir), OPTIONS, workers=1)
    assert built.tokenized == 0
    assert files_of(cache) == files_of(whole)


def test_a_part_says_what_it_made_and_what_comes_next(cache, tiny_tokenizer_dir):
    first = tokenize_part(cache, str(tiny_tokenizer_dir), Part(number=1, count=2))
    assert first.tokenized + first.left == 3_000
    made, left = f"{first.tokenized:,}", f"{first.left:,}"
    assert part_summary(first, 1.0).splitlines() == [
        f"part 1 of 2: {made} conversations tokenised in 1.0 s",
        f"next: when the other parts are done ({left} conversations to go): run it without --shard to pack them",
    ]
    again = tokenize_part(cache, str(tiny_tokenizer_dir), Part(number=1, count=2))
    assert (again.tokenized, again.there) == (0, first.tokenized)
    tokenize_part(cache, str(tiny_tokenizer_dir), Part(number=2, count=2))
    last = tokenize_part(cache, str(tiny_tokenizer_dir), Part(number=2, count=2))
    assert part_summary(last, 1.0).splitlines() == [
        f"part 2 of 2: nothing to do, {last.there:,} were there",
        "next: all parts are done: run it without --shard to pack them",
    ]


def test_a_part_leaves_temporary_files_of_others_alone_and_a_plain_run_removes_them(cache, tiny_tokenizer_dir):
    tokenize_part(cache, str(tiny_tokenizer_dir), Part(number=1, count=2))
    [folder] = (cache / "tokens").iterdir()
    others = folder / f".{'0' * 32}-00000000.arrow.77.tmp"
    others.write_bytes(b"half")
    os.utime(others, (0, 0))
    tokenize_part(cache, str(tiny_tokenizer_dir), Part(number=2, count=2))
    assert others.exists()
    tokenize_corpus(cache, str(tiny_tokenizer_dir), OPTIONS, workers=1)
    assert not others.exists()


def test_a_part_waits_for_no_other_part_but_for_a_whole_run(cache, tiny_tokenizer_dir):
    with locked(cache, shared=True):
        tokenize_part(cache, str(tiny_tokenizer_dir), Part(number=1, count=9))
        with pytest.raises(CacheError, match=r"another run \(process \d+\) is writing to it"):
            tokenize_corpus(cache, str(tiny_tokenizer_dir), OPTIONS)
    with locked(cache), pytest.raises(CacheError, match="another run"):
        tokenize_part(cache, str(tiny_tokenizer_dir), Part(number=1, count=9))


@pytest.mark.parametrize("text", ["0/4", "5/4", "4", "a/b", "1/0", "-1/4", "1/4/2", ""])
def test_a_part_that_is_none_is_refused(text):
    with pytest.raises(
        InputError, match=f"--shard {text}: expected I/N, I from 1 to N, such as 2/8; for a Slurm array"
    ):
        parsed_part(text)


def test_a_part_needs_no_cluster(cache, tiny_tokenizer_dir, capsys):
    from dataprep.cli import main

    arguments = ["tokenize", str(cache), "--model", str(tiny_tokenizer_dir), "--shard", "1/2", "--engine", "ray"]
    assert main(arguments) == 1
    assert "--engine ray shares out by itself; leave one out" in capsys.readouterr().err
