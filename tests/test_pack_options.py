"""`--pack`: what each way gives, from conversations to the trainer's batches."""

from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from corpus import many_dialogues, write_jsonl

from dataprep.core.shards import all_packs
from dataprep.normalize.run import normalize_corpus
from dataprep.tokenize.recipe import read_recipe
from dataprep.tokenize.run import Built, tokenize_corpus
from dataprep.tokenize.summary import tokenize_summary
from dataprep.verify.cache import verify_cache
from dataprep.verify.splits import split_problems
from schemas.manifest import PackOptions
from train.batch import collate, pack_order
from train.load import open_shards

OPTIONS = PackOptions(seq_len=512, overflow="cut", val_fraction=0.0, seed=0)


@pytest.fixture(scope="module")
def cache(tmp_path_factory, tiny_tokenizer_dir) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    (folder / "twice.toml").write_text("[default]\nweight = 2.0\n", encoding="utf-8")
    normalize_corpus([str(write_jsonl(folder / "raw.jsonl", many_dialogues(60)))], folder / "cache", workers=1)
    return folder / "cache"


def packed(cache: Path, model: Path, pack: str, seed: int = 0, twice: bool = False) -> Built:
    recipe = read_recipe(cache.parent / "twice.toml") if twice else None
    return tokenize_corpus(cache, str(model), replace(OPTIONS, pack=pack, seed=seed), 1, recipe)


def rows_of(built: Built) -> list[list[int]]:
    """The rows of the examples in each pack."""
    return [pack.conversation_rows.tolist() for _, _, pack in all_packs(built.folder, built.manifest)]


def test_sequential_packs_hold_conversations_in_their_order(cache, tiny_tokenizer_dir):
    built = packed(cache, tiny_tokenizer_dir, "sequential")
    assert built.manifest.options.pack == "sequential"
    assert [*chain(*rows_of(built))] == list(range(60))
    assert 1 < len(rows_of(built)) < 60
    assert "of 512, in order: 60 examples" in tokenize_summary(built, 0.0)
    assert verify_cache(cache, None).problems == []


def test_copies_follow_when_all_conversations_were_there_once(cache, tiny_tokenizer_dir):
    built = packed(cache, tiny_tokenizer_dir, "sequential", twice=True)
    assert [*chain(*rows_of(built))] == [*range(60), *range(60)]
    assert verify_cache(cache, 10).problems == []


def test_without_packing_each_row_of_a_shard_is_one_example(cache, tiny_tokenizer_dir):
    built = packed(cache, tiny_tokenizer_dir, "none")
    assert rows_of(built) == [[row] for row in range(60)]
    assert "of 512, one example each: 60 examples" in tokenize_summary(built, 0.0)
    assert verify_cache(cache, None).problems == []


def test_the_order_of_best_fit_is_decided_by_the_seed_alone(cache, tiny_tokenizer_dir):
    first, again, other = (rows_of(packed(cache, tiny_tokenizer_dir, "best-fit", seed)) for seed in (0, 0, 1))
    assert first == again != other
    kept = [rows_of(packed(cache, tiny_tokenizer_dir, "sequential", seed)) for seed in (0, 1)]
    assert kept[0] == kept[1]


def test_packs_that_are_not_what_the_option_says_are_found(cache, tiny_tokenizer_dir):
    built = packed(cache, tiny_tokenizer_dir, "best-fit")
    for pack, problem in (
        ("sequential", "train: examples aren't in the order of conversations"),
        ("none", "train: a pack doesn't hold one example"),
    ):
        changed = replace(built.manifest, options=replace(built.manifest.options, pack=pack))
        assert split_problems(built.folder, changed) == [f"{built.folder}: {problem}; run `dataprep tokenize` again"]


@pytest.mark.parametrize("pack", ["best-fit", "sequential", "none"])
def test_the_trainer_reads_packs_of_every_kind(cache, tiny_tokenizer_dir, pack):
    built = packed(cache, tiny_tokenizer_dir, pack)
    packs = open_shards(cache).train
    batches = [collate(packs, order.tolist()) for order in np.array_split(pack_order(len(packs), 0, 0), 3)]
    assert sum(len(batch.seq_lengths) for batch in batches) == 60
    assert sum(batch.num_targets for batch in batches) == built.manifest.ledger.tokens.targets
