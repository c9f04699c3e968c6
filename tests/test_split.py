"""Which conversations are held out: by content, by source, and what happens to those equal to them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpus import many_dialogues, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.core.shards import all_packs
from dataprep.normalize.choices import Choices
from dataprep.normalize.run import normalize_corpus
from dataprep.stages.split import split_off
from dataprep.tokenize.run import tokenize_corpus
from dataprep.tokenize.summary import tokenize_summary
from dataprep.verify.cache import verify_cache
from dataprep.verify.splits import split_problems
from schemas.errors import InputError
from schemas.manifest import PackOptions

OPTIONS = PackOptions(seq_len=256, overflow="cut", val_fraction=0.0, val_sources=[], seed=0)

# The hashes of keys 0, 1, 2 and 3, as parts of the whole: 0.883, 0.567, 0.591, 0.113.


def held_out(rows: list[tuple[int, int]], fraction: float, whole: tuple[int, ...] = ()) -> dict[tuple[int, int], str]:
    """The side of each (key, source)."""
    keys = np.array([key for key, _ in rows], dtype=np.uint64)
    sources = np.array([source for _, source in rows], dtype=np.int32)
    split = split_off(keys, sources, fraction, whole)
    sides = np.where(split.held_out, "val", np.where(split.equal, "equal", "train"))
    return dict(zip(rows, sides.tolist(), strict=True))


def corpus(folder: Path, sources: dict[str, list], options: tuple[str, ...] = ()) -> Path:
    files = [str(write_jsonl(folder / f"{name}.jsonl", dialogues)) for name, dialogues in sources.items()]
    normalize_corpus(files, folder / "cache", choices=Choices(clean=list(options)), workers=1)
    return folder / "cache"


def test_those_with_a_hash_below_the_fraction_are_held_out():
    rows = [(0, 0), (1, 0), (2, 0), (3, 0)]
    assert held_out(rows, 0.3) == {(0, 0): "train", (1, 0): "train", (2, 0): "train", (3, 0): "val"}
    assert held_out(rows, 0.58) == {(0, 0): "train", (1, 0): "val", (2, 0): "train", (3, 0): "val"}


def test_a_fraction_of_zero_holds_out_nothing():
    assert set(held_out([(key, key % 3) for key in range(100)], 0.0).values()) == {"train"}


def test_a_source_without_any_held_out_gives_the_one_with_the_smallest_hash():
    assert held_out([(0, 0), (1, 0), (2, 0), (3, 1)], 0.3)[(1, 0)] == "val"
    assert held_out([(0, 0), (2, 0)], 0.01) == {(0, 0): "train", (2, 0): "val"}


def test_a_source_without_any_to_train_on_gives_the_one_with_the_largest_hash():
    assert held_out([(1, 0), (2, 0), (3, 0)], 0.8) == {(1, 0): "val", (2, 0): "train", (3, 0): "val"}


def test_a_source_of_one_conversation_stays_where_its_hash_puts_it():
    assert held_out([(3, 0), (0, 1)], 0.3) == {(3, 0): "val", (0, 1): "train"}


def test_equal_conversations_go_together_even_where_one_of_them_is_the_lone_one():
    sides = held_out([(0, 0), (2, 0), (2, 1), (0, 1)], 0.01)
    assert sides == {(0, 0): "train", (2, 0): "val", (2, 1): "val", (0, 1): "train"}


def test_a_source_held_out_as_a_whole_takes_equal_ones_out_of_training():
    sides = held_out([(0, 0), (1, 0), (2, 0), (0, 1), (3, 1)], 0.0, whole=(1,))
    assert sides == {(0, 0): "equal", (1, 0): "train", (2, 0): "train", (0, 1): "val", (3, 1): "val"}


def test_no_conversations_are_no_sides():
    assert held_out([], 0.5) == {}


ROWS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 3)), max_size=60)


@settings(deadline=None, max_examples=300)
@given(ROWS, st.floats(0.01, 0.99))
def test_both_sides_hold_every_source_of_two_or_more_and_equal_ones_never_straddle(rows, fraction):
    sides = held_out(rows, fraction)
    owner = {key: min(source for other, source in rows if other == key) for key, _ in rows}
    for source in range(4):
        own = {key for key, _ in rows if owner[key] == source}
        if len(own) > 1:
            assert {sides[(key, source)] for key in own} == {"train", "val"}
    for key, _ in rows:
        assert len({side for (other, _), side in sides.items() if other == key}) == 1


@settings(deadline=None, max_examples=300)
@given(st.integers(0, 2**32), st.integers(2, 60), st.integers(1, 60), st.floats(0.01, 0.99))
def test_added_conversations_move_none_but_lone_ones(first, before, added, fraction):
    def source(key: int) -> int:
        return key % 3

    old = [(key, source(key)) for key in range(first, first + before)]
    new = old + [(key, source(key)) for key in range(first + before, first + before + added)]
    by_hash = {row: held_out([row], fraction)[row] for row in new}  # one alone stays where its hash puts it
    earlier, later = held_out(old, fraction), held_out(new, fraction)
    for row in old:
        lone = earlier[row] != by_hash[row] or later[row] != by_hash[row]
        assert earlier[row] == later[row] or lone
    for sides in (earlier, later):
        for number in range(3):
            assert sum(sides[row] != by_hash[row] for row in sides if row[1] == number) <= 1


def test_every_source_is_on_both_sides_of_the_shards(tmp_path, tiny_tokenizer_dir):
    dialogues = many_dialogues(104)
    cache = corpus(tmp_path, {"large": dialogues[:100], "small": dialogues[100:102], "tiny": dialogues[102:]})
    options = replace(OPTIONS, val_fraction=0.05)
    built = tokenize_corpus(cache, str(tiny_tokenizer_dir), options, workers=1)
    for name in ("small", "tiny"):
        assert [built.manifest.by_source[side][name].conversations for side in ("train", "val")] == [1, 1]
    assert verify_cache(cache, None).problems == []
    shown = tokenize_summary(built, 0.0)
    assert "held out: 5% by a hash of content, some of every source with two or more" in shown
    assert "by source  trained on  tokens  share  held out\n" in shown
    assert "  large            96  " in shown


def test_all_pieces_of_a_conversation_stay_together(tmp_path, tiny_tokenizer_dir):
    long = [
        [(role, f"{role} {number} says {turn}: " + "water " * 8) for turn in range(8) for role in ("user", "assistant")]
        for number in range(40)
    ]
    options = replace(OPTIONS, val_fraction=0.4, overflow="split")
    cache = corpus(tmp_path, {"long": long})
    built = tokenize_corpus(cache, str(tiny_tokenizer_dir), options, workers=1)
    rows: dict[str, set[int]] = {"train": set(), "val": set()}
    for file, _, pack in all_packs(built.folder, built.manifest):
        rows[file.split("-")[0]] |= set(pack.conversation_rows.tolist())
    assert rows["train"] & rows["val"] == set()
    assert len(rows["train"] | rows["val"]) == 40
    assert built.manifest.by_source["train"]["long"].examples > built.manifest.by_source["train"]["long"].conversations


def test_a_source_can_be_held_out_by_name(tmp_path, tiny_tokenizer_dir):
    dialogues = many_dialogues(30)
    cache = corpus(tmp_path, {"train": dialogues[:20], "eval": dialogues[20:]})
    options = replace(OPTIONS, val_sources=["eval"])
    built = tokenize_corpus(cache, str(tiny_tokenizer_dir), options, workers=1)
    by_source = built.manifest.by_source
    assert {name: counts.conversations for name, counts in by_source["train"].items()} == {"train": 20}
    assert {name: counts.conversations for name, counts in by_source["val"].items()} == {"eval": 10}
    assert "held out: all of eval" in tokenize_summary(built, 0.0)


def test_what_equals_a_held_out_conversation_is_counted_and_listed_and_never_trained_on(tmp_path, tiny_tokenizer_dir):
    dialogues = many_dialogues(12)
    cache = corpus(tmp_path, {"train": dialogues[:10], "eval": dialogues[8:]}, options=("duplicates=off",))
    options = replace(OPTIONS, val_sources=["eval"])
    built = tokenize_corpus(cache, str(tiny_tokenizer_dir), options, workers=1)
    ledger = built.manifest.ledger
    assert (ledger.rows, ledger.kept, ledger.turned_away) == (14, 12, {"equal-to-held-out": 2})
    assert ledger.tokens.cut["equal-to-held-out"] > 0
    assert built.manifest.by_source["val"]["eval"].conversations == 4
    lines = [json.loads(line) for line in (built.folder / built.manifest.quarantine.file).read_text().splitlines()]
    assert [(line["row"], line["reason"]) for line in lines] == [(9, "equal-to-held-out"), (10, "equal-to-held-out")]
    assert verify_cache(cache, None).problems == []


def test_verify_finds_a_conversation_on_both_sides(tmp_path, tiny_tokenizer_dir):
    built = tokenize_corpus(corpus(tmp_path, {"one": many_dialogues(5)}), str(tiny_tokenizer_dir), OPTIONS, workers=1)
    train, counts = built.manifest.splits["train"], built.manifest.by_source["train"]
    doubled = replace(built.manifest, splits={"train": train, "val": train}, by_source={"train": counts, "val": counts})
    assert split_problems(built.folder, built.manifest) == []
    assert split_problems(built.folder, doubled) == [
        f"{built.folder}: conversation 0: trained on and held out, as are 4 more; run `dataprep tokenize` again"
    ]


def test_a_mistaken_split_says_what_to_do(tmp_path, tiny_tokenizer_dir):
    dialogues = many_dialogues(4)
    cache = corpus(tmp_path, {"one": dialogues[:2], "two": dialogues[2:]})
    model = str(tiny_tokenizer_dir)
    with pytest.raises(InputError, match="--val-source three: no conversation is of this source; they are of one, two"):
        tokenize_corpus(cache, model, replace(OPTIONS, val_sources=["three"]))
    again = corpus(tmp_path, {"one": dialogues[:2], "two": dialogues[2:], "three": dialogues[1:3]})
    with pytest.raises(InputError, match=r"--val-source three: none of its rows was kept; .* name this one first in"):
        tokenize_corpus(again, model, replace(OPTIONS, val_sources=["three"]))
    with pytest.raises(InputError, match="no conversation is left to train on: all are held out; lower --val-fraction"):
        tokenize_corpus(cache, model, replace(OPTIONS, val_sources=["one", "two"]))
