"""Weights and caps by source: how they are read, what they select, and that nothing is tokenised or lost for it."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from corpus import many_dialogues, write_jsonl
from hypothesis import given, settings
from hypothesis import strategies as st

from dataprep.cli import main
from dataprep.core.shards import all_packs
from dataprep.normalize.choices import Choices
from dataprep.normalize.run import normalize_corpus
from dataprep.stages.best_fit import best_fit_decreasing
from dataprep.stages.mixture import num_copies
from dataprep.stages.pack import mixed, pack_examples
from dataprep.tokenize.recipe import agreed_seed, read_recipe, settle
from dataprep.tokenize.run import Built, tokenize_corpus
from dataprep.tokenize.summary import tokenize_summary
from dataprep.verify.cache import verify_cache
from schemas.errors import InputError
from schemas.manifest import PackOptions, SourceMix

FIELDS = "weight, max_conversations, max_tokens, train_on, turns, thinking"
OPTIONS = PackOptions(seq_len=256, overflow="cut", val_fraction=0.0, val_sources=[], seed=0)


def copies(mix: SourceMix, count: int = 1_000, seed: int = 0, tokens: int = 10) -> np.ndarray:
    keys = mixed(np.arange(count, dtype=np.uint64), 7)
    return num_copies(keys, np.zeros(count, dtype=np.int32), np.full(count, tokens), [mix], seed)


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory, tiny_tokenizer_dir) -> Path:
    """Three sources of 40, 40 and 20 conversations, tokenised once."""
    folder = tmp_path_factory.mktemp("mixture")
    dialogues = many_dialogues(100)
    parts = {"garden": dialogues[:40], "glaive_code": dialogues[40:80], "glaive_math": dialogues[80:]}
    files = [str(write_jsonl(folder / f"{name}.jsonl", part)) for name, part in parts.items()]
    normalize_corpus(files, folder / "cache", choices=Choices(), workers=1)
    tokenize_corpus(folder / "cache", str(tiny_tokenizer_dir), OPTIONS, workers=1)
    return folder / "cache"


def packed(cache: Path, model: Path, text: str, options: PackOptions = OPTIONS) -> Built:
    return tokenize_corpus(cache, str(model), options, 1, read_recipe(written(cache.parent, text)))


def trained(built: Built) -> dict[str, tuple[int, int]]:
    """Conversations and examples of each source."""
    return {name: (c.conversations, c.examples) for name, c in built.manifest.by_source["train"].items()}


def test_a_whole_weight_is_as_many_copies_of_each():
    assert set(copies(SourceMix(weight=1.0)).tolist()) == {1}
    assert set(copies(SourceMix(weight=3.0)).tolist()) == {3}
    assert set(copies(SourceMix(weight=0.0)).tolist()) == {0}


def test_the_fraction_of_a_weight_is_one_more_copy_of_as_large_a_part():
    assert Counter(copies(SourceMix(weight=0.3)).tolist()) == {0: 705, 1: 295}
    assert Counter(copies(SourceMix(weight=2.3)).tolist()) == {2: 705, 3: 295}


def published_hash(key: int, seed: int) -> int:
    """h of schemas/shard.md, in whole numbers."""
    z = (key + (seed + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


@settings(deadline=None, max_examples=100)
@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=40, unique=True),
    st.builds(
        SourceMix,
        weight=st.floats(0, 3),
        max_conversations=st.none() | st.integers(1, 30),
        max_tokens=st.none() | st.integers(1, 400),
    ),
    st.integers(0, 9),
)
def test_copies_are_those_of_the_specification(keys, mix, seed):
    tokens = [1 + key % 20 for key in keys]
    expected, spent = [0] * len(keys), 0
    order = sorted(range(len(keys)), key=lambda i: published_hash(published_hash(keys[i], seed), 1))
    for nth, i in enumerate(order):
        spent += tokens[i]
        if nth < (mix.max_conversations or 10**9) and spent <= (mix.max_tokens or 10**9):
            more = published_hash(published_hash(keys[i], seed), 2) < int(mix.weight % 1 * 2**64)
            expected[i] = int(mix.weight) + more
    sources = np.zeros(len(keys), dtype=np.int32)
    assert num_copies(np.array(keys, dtype=np.uint64), sources, np.array(tokens), [mix], seed).tolist() == expected


def test_caps_take_the_first_by_hash_and_come_before_the_weight():
    assert Counter(copies(SourceMix(max_conversations=100)).tolist()) == {0: 900, 1: 100}
    assert Counter(copies(SourceMix(max_conversations=100, weight=2.0)).tolist()) == {0: 900, 2: 100}
    assert Counter(copies(SourceMix(max_tokens=505)).tolist()) == {0: 950, 1: 50}
    assert Counter(copies(SourceMix(max_tokens=505, max_conversations=7)).tolist()) == {0: 993, 1: 7}
    assert copies(SourceMix(max_conversations=5_000)).sum() == 1_000


def test_another_seed_selects_others():
    one, other = (copies(SourceMix(weight=0.5), seed=seed) for seed in (0, 1))
    assert 200 < (one & other).sum() < 300


@settings(deadline=None, max_examples=100)
@given(
    st.integers(1, 80), st.integers(1, 80), st.integers(1, 900), st.integers(1, 900), st.floats(0, 3), st.floats(0, 3)
)
def test_a_higher_cap_or_weight_only_adds(one, other, tokens, more_tokens, weight, more_weight):
    low = SourceMix(max_conversations=min(one, other), max_tokens=min(tokens, more_tokens), weight=weight)
    high = SourceMix(max_conversations=max(one, other), max_tokens=max(tokens, more_tokens), weight=weight)
    assert (copies(low, count=60) <= copies(high, count=60)).all()
    weights = sorted((weight, more_weight))
    assert (copies(SourceMix(weight=weights[0]), 60) <= copies(SourceMix(weight=weights[1]), 60)).all()


@settings(deadline=None, max_examples=100)
@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=60, unique=True), st.data())
def test_a_source_is_selected_alike_beside_any_others_and_in_any_order(keys, data):
    mixes = [SourceMix(weight=0.5, max_conversations=9), SourceMix(weight=1.7, max_tokens=99)]
    sources = np.array(data.draw(st.lists(st.integers(0, 1), min_size=len(keys), max_size=len(keys))), dtype=np.int32)
    order = np.array(data.draw(st.permutations(range(len(keys)))))
    array, tokens = np.array(keys, dtype=np.uint64), np.array([1 + key % 30 for key in keys])
    together = num_copies(array, sources, tokens, mixes, 3)
    assert num_copies(array[order], sources[order], tokens[order], mixes, 3).tolist() == together[order].tolist()
    for number in (0, 1):
        own = sources == number
        assert num_copies(array[own], sources[own], tokens[own], mixes, 3).tolist() == together[own].tolist()


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 40), st.integers(1, 4)), min_size=1, max_size=80), st.integers(40, 90))
def test_no_bin_holds_two_copies_and_none_is_overfull(items, capacity):
    rounds = [(copy, number, length) for number, (length, times) in enumerate(items) for copy in range(times)]
    rounds.sort()
    lengths = np.array([length for _, _, length in rounds])
    bins = best_fit_decreasing(lengths, capacity, np.array([copy for copy, _, _ in rounds]))
    assert np.bincount(bins, weights=lengths).max() <= capacity
    places = [(bin_, number) for bin_, (_, number, _) in zip(bins.tolist(), rounds, strict=True)]
    assert len(set(places)) == len(places)
    assert sorted(set(bins.tolist())) == list(range(bins.max() + 1))


def test_copies_share_a_pack_where_packs_of_their_own_would_be_almost_empty():
    times = 100
    lengths, keys, numbers = np.full(times, 10), np.zeros(times, dtype=np.uint64), np.arange(times)
    assert len(pack_examples(lengths, keys, numbers, 1_000, 0).pack_bounds) - 1 == 1


def test_a_recipe_repacks_without_tokenising_and_the_ledger_closes(cache, tiny_tokenizer_dir):
    text = """
        seed = 0
        [sources.garden]
        weight = 2.0
        [sources."glaive_*"]
        max_conversations = 15
        """
    built = packed(cache, tiny_tokenizer_dir, text)
    assert (built.tokenized, built.up_to_date) == (0, False)
    assert trained(built) == {"garden": (40, 80), "glaive_code": (15, 15), "glaive_math": (15, 15)}
    ledger, tokens = built.manifest.ledger, built.manifest.ledger.tokens
    assert (ledger.rows, ledger.kept, ledger.turned_away) == (100, 70, {"left-out-by-recipe": 30})
    assert tokens.repeated * 2 == built.manifest.by_source["train"]["garden"].tokens
    assert tokens.tokens + tokens.repeated == tokens.targets + tokens.context + sum(tokens.cut.values())
    assert tokens.cut["left-out-by-recipe"] > 0
    for _, _, pack in all_packs(built.folder, built.manifest):
        assert len(set(pack.conversation_rows.tolist())) == len(pack.conversation_rows)
    report = verify_cache(cache, None)
    assert report.problems == []
    assert report.checked[-2] == (
        "examples: 70 of 70 derived anew give the same ids and mask; 40 more are copies of them"
    )


def test_the_summary_tells_weights_tokens_and_shares(cache, tiny_tokenizer_dir):
    text = "sources.garden.weight = 2.0\nsources.'glaive_c*'.weight = 0.0"
    built = packed(cache, tiny_tokenizer_dir, text, replace(OPTIONS, val_sources=["glaive_math"]))
    lines = tokenize_summary(built, 0.0).splitlines()
    [head] = [number for number, line in enumerate(lines) if line.startswith("by source")]
    table = [line.split() for line in lines[head : head + 4]]
    tokens = f"{built.manifest.by_source['train']['garden'].tokens:,}"
    assert table == [
        ["by", "source", "trained", "on", "weight", "tokens", "share", "held", "out"],
        ["garden", "40", "2", tokens, "100.0%", "0"],
        ["glaive_code", "0", "0", "0", "0.0%", "0"],
        ["glaive_math", "0", "0", "0", "0.0%", "20"],
    ]
    assert lines[head + 4] == "held out: all of glaive_math; each once, whatever the recipe"


def test_the_held_out_side_is_the_same_whatever_the_recipe(cache, tiny_tokenizer_dir):
    options = replace(OPTIONS, val_fraction=0.2)
    plain = tokenize_corpus(cache, str(tiny_tokenizer_dir), options, workers=1)
    mixture = packed(cache, tiny_tokenizer_dir, "default.weight = 3.0\nsources.garden.weight = 0.0", options)
    assert mixture.manifest.by_source["val"] == plain.manifest.by_source["val"]
    assert [r.sha256 for r in mixture.manifest.splits["val"]] == [r.sha256 for r in plain.manifest.splits["val"]]
    assert set(mixture.manifest.by_source["train"]) == {"glaive_code", "glaive_math"}


def test_only_what_a_recipe_says_in_the_end_decides_the_bytes(cache, tiny_tokenizer_dir):
    first = packed(cache, tiny_tokenizer_dir, 'sources."glaive_*".weight = 2')
    same = packed(
        cache, tiny_tokenizer_dir, "# twice\n[sources.glaive_math]\nweight=2.0\n[sources.glaive_code]\nweight=2.0"
    )
    assert same.up_to_date
    assert first.manifest.mixture == {"glaive_code": SourceMix(weight=2.0), "glaive_math": SourceMix(weight=2.0)}
    assert packed(cache, tiny_tokenizer_dir, "[default]\nweight = 1").manifest.mixture == {}
    plain = tokenize_corpus(cache, str(tiny_tokenizer_dir), OPTIONS, workers=1)
    assert plain.up_to_date


def test_inspect_shows_copies_once_and_names_what_the_recipe_left_out(cache, tiny_tokenizer_dir, capsys):
    packed(cache, tiny_tokenizer_dir, "sources.garden.weight = 2\nsources.glaive_math.weight = 0")
    assert main(["inspect", str(cache), "--conversation", "3"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("── example") == 1
    assert shown.count(", pack ") == 2
    assert main(["inspect", str(cache), "--conversation", "90"]) == 0
    assert "left-out-by-recipe: a weight or cap of its source keeps it out of training" in capsys.readouterr().out


def test_verify_finds_copies_that_the_manifest_does_not_count(cache, tiny_tokenizer_dir):
    built = packed(cache, tiny_tokenizer_dir, "sources.garden.weight = 2")
    path = built.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["ledger"]["tokens"]["repeated"] -= 5
    manifest["ledger"]["tokens"]["tokens"] += 5
    manifest["by_source"]["train"]["garden"]["conversations"] = 41
    manifest.pop("checksum", None)
    path.write_text(json.dumps(manifest))
    problems = [problem.split(": ", 1)[1] for problem in verify_cache(cache, None).problems]
    assert problems == [
        "train: its counts by source are not the manifest's; run `dataprep tokenize` again",
        "ledger: repeated are not the tokens of second and further copies; run `dataprep tokenize` again",
    ]
    path.unlink()


def test_the_first_entry_that_matches_counts():
    names = ["glaive_code", "glaive_math", "other"]
    recipe = read_recipe_text(
        '[sources.glaive_math]\nweight = 0.5\n[sources."glaive_*"]\nweight = 2\n[default]\nweight = 0'
    )
    assert settle(recipe, names) == {
        "glaive_math": SourceMix(weight=0.5),
        "glaive_code": SourceMix(weight=2.0),
        "other": SourceMix(weight=0.0),
    }


def read_recipe_text(text: str, folder: Path | None = None):
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        return read_recipe(written(folder or Path(temporary), text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources.a.weight = -1", "sources.a.weight = -1: expected a number from 0 to 1000, such as 2.0"),
        ("sources.a.weight = '2'", 'sources.a.weight = "2": expected a number from 0 to 1000, such as 2.0'),
        ("sources.a.weight = true", "sources.a.weight = true: expected a number from 0 to 1000, such as 2.0"),
        ("sources.a.weight = inf", "sources.a.weight = Infinity: expected a number from 0 to 1000, such as 2.0"),
        ("sources.a.max_tokens = 0", "sources.a.max_tokens = 0: expected a whole number, 1 or more"),
        ("sources.a.max_tokens = 2.5", "sources.a.max_tokens = 2.5: expected a whole number, 1 or more"),
        ("default.max_conversations = 'all'", 'default.max_conversations = "all": expected a whole number, 1 or more'),
        ("seed = -3", "seed = -3: expected a whole number, 0 or more"),
        ("sources = 3", 'sources = 3: expected tables such as [sources.NAME] or [sources."glaive_*"]'),
        ("sources.a = 3", "sources.a = 3: expected a table such as [sources.NAME] with weight = 1.0"),
        ("sources.weight = 3", "sources.weight = 3: expected a table such as [sources.NAME] with weight = 1.0"),
        ("default = 3", "default = 3: expected a table such as [default] with weight = 1.0"),
        ("source.a.weight = 1", "source: unknown; expected one of seed, sources, default"),
        ("sources.a.wieght = 1", f"sources.a.wieght: unknown; expected one of {FIELDS}"),
        ("default.when = 2020-01-01", f"default.when: unknown; expected one of {FIELDS}"),
        (
            "[sources.chats.v2]\nweight = 2",
            f'sources.chats.v2: unknown; expected one of {FIELDS}; a name with dots is quoted: [sources."chats.v2"]',
        ),
        ("[sources", "not TOML: "),
    ],
)
def test_a_mistake_in_a_recipe_names_file_and_key_and_what_is_expected(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        read_recipe(written(tmp_path, text))
    assert str(caught.value).startswith(f"--recipe {tmp_path / 'recipe.toml'}: {message}")
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_missing_or_not_text_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.toml: cannot be read: No such file or directory; name a \.toml file"):
        read_recipe(tmp_path / "none.toml")
    (tmp_path / "recipe.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not UTF-8; save it as UTF-8"):
        read_recipe(tmp_path / "recipe.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sources.gardn.weight = 2", "sources.'gardn': no source has such a name; the sources are garden, glaive_code"),
        (
            "sources.'glaive_*'.weight = 2\nsources.glaive_code.weight = 1",
            "sources.'glaive_code': glaive_code is taken by sources.'glaive_*', which stands before it; move it up",
        ),
        ("default.weight = 0", "the recipe leaves out every conversation to train on; raise a weight or cap in it"),
        ("default.max_tokens = 1", "the recipe leaves out every conversation to train on; raise a weight or cap in it"),
    ],
)
def test_an_entry_without_effect_and_a_recipe_without_rows_are_errors(cache, tiny_tokenizer_dir, text, message):
    with pytest.raises(InputError) as caught:
        packed(cache, tiny_tokenizer_dir, text)
    assert message in str(caught.value)


def test_seeds_of_recipe_and_command_line_agree_or_are_an_error():
    seeded, unseeded = read_recipe_text("seed = 4"), read_recipe_text("")
    assert [agreed_seed(seeded, None), agreed_seed(seeded, 4), agreed_seed(unseeded, 2), agreed_seed(None, None)] == [
        4,
        4,
        2,
        0,
    ]
    with pytest.raises(InputError, match=r"--seed 0: .*recipe.toml has seed = 4; leave one of them out"):
        agreed_seed(seeded, 0)


def test_the_command_line_takes_a_recipe_and_sources_to_hold_out(cache, tiny_tokenizer_dir, capsys):
    recipe = written(cache.parent, "seed = 5\n[sources.garden]\nweight = 0.5")
    command = ["tokenize", str(cache), "--model", str(tiny_tokenizer_dir), "--seq-len", "256", "--recipe", str(recipe)]
    assert main([*command, "--val-source", "glaive_math", "--val-source", "glaive_math"]) == 0
    assert "0 conversations tokenised anew" in capsys.readouterr().out
    assert main([*command, "--seed", "1"]) == 1
    assert "--seed 1: " in capsys.readouterr().err
