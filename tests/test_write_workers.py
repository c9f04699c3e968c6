"""Shards are the same bytes however many processes write them."""

from pathlib import Path

import pytest
from corpus import many_dialogues, write_jsonl

from dataprep.normalize.run import normalize_corpus
from dataprep.stages import write
from dataprep.stages.write import _runs
from dataprep.tokenize.run import tokenize_corpus
from schemas.files import sha256_file
from schemas.manifest import PackOptions


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("write-workers")
    normalize_corpus([str(write_jsonl(home / "raw.jsonl", many_dialogues(300)))], home / "cache", workers=1)
    return home / "cache"


def test_shards_are_the_same_bytes_however_many_processes_write_them(cache, tiny_tokenizer_dir, monkeypatch):
    monkeypatch.setattr(write, "TOKENS_PER_SHARD", 1_024)
    monkeypatch.setattr(write, "SHARDS_AT_ONCE", 4)
    digests = []
    for workers in (1, 2, 3):
        for shard in (cache / "shards").glob("*.arrow"):
            shard.unlink()
        options = PackOptions(seq_len=256, overflow="cut", val_fraction=0.2, seed=0)
        tokenize_corpus(cache, str(tiny_tokenizer_dir), options, workers)
        digests.append({path.name: sha256_file(path) for path in sorted((cache / "shards").glob("*.arrow"))})
    assert digests[0] == digests[1] == digests[2]
    assert sum(name.startswith("train-") for name in digests[0]) > 8
    assert sum(name.startswith("val-") for name in digests[0]) > 1


@pytest.mark.parametrize(
    ("shards", "workers", "runs"),
    [
        (0, 1, []),
        (7, 1, [3, 4]),
        (4, 2, [2, 2]),
        (7, 2, [1, 2, 2, 2]),
        (13, 4, [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_workers_hold_no_more_shards_together_than_one_alone(shards, workers, runs):
    taken = _runs(list(range(shards)), workers)
    assert [number for run in taken for number in run] == list(range(shards))
    assert sorted(map(len, taken)) == runs
    assert max(map(len, taken), default=0) * workers <= write.SHARDS_AT_ONCE
