"""What of each source is trained on: rules in a recipe, what they retokenise, and who repeats them."""

import json
from pathlib import Path

import numpy as np
import pytest
from corpus import many_dialogues, record, table, write_jsonl

from dataprep.core.chunks import Chunk
from dataprep.core.columns import read_rows
from dataprep.core.shards import all_packs
from dataprep.normalize.run import normalize_corpus
from dataprep.report.text import read_index
from dataprep.report.tokens import read_cached
from dataprep.stages.tokenize import tokenize_chunk
from dataprep.tokenize.corpus import Corpus
from dataprep.tokenize.recipe import read_recipe, settle_targets
from dataprep.tokenize.run import Built, tokenize_corpus
from dataprep.tokenize.summary import tokenize_summary
from dataprep.tokenize.targets import keyed_chunks
from dataprep.tokenize.token_cache import TokenizeEngine
from dataprep.verify.cache import verify_cache
from schemas.errors import InputError
from schemas.manifest import PackOptions, TargetRules, TokenOptions, read_conversations_manifest

OPTIONS = PackOptions(seq_len=1024, overflow="cut", val_fraction=0.0, seed=0)
LAST = TargetRules(turns="whole", train_on="last", thinking="keep")
SIZES = {"garden": 300, "kitchen": 200, "office": 100}


@pytest.fixture(scope="module")
def cache(tmp_path_factory, tiny_tokenizer_dir) -> Path:
    """600 conversations of three sources in several chunks, tokenised once."""
    folder = tmp_path_factory.mktemp("targets")
    dialogues = iter(many_dialogues(600))
    files = [
        str(write_jsonl(folder / f"{name}.jsonl", [next(dialogues) for _ in range(size)]))
        for name, size in SIZES.items()
    ]
    normalize_corpus(files, folder / "cache", workers=1)
    tokenize_corpus(folder / "cache", str(tiny_tokenizer_dir), OPTIONS, workers=1)
    return folder / "cache"


def packed(cache: Path, model: Path, text: str, options: TokenOptions | None = None) -> Built:
    path = cache.parent / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return tokenize_corpus(cache, str(model), OPTIONS, 1, read_recipe(path), options)


def num_answers(built: Built, cache: Path) -> dict[str, tuple[int, int]]:
    """Of each source, runs of targets and assistant messages."""
    conversations = cache / "conversations"
    source = read_conversations_manifest(conversations)
    rows = read_rows(conversations, source, 0, source.kept, ["source", "messages"]).to_pylist()
    counts = {name: [0, 0] for name in SIZES}
    for _, _, pack in all_packs(built.folder, built.manifest):
        for number, (low, high) in enumerate(pack.bounds()):
            row = rows[int(pack.conversation_rows[number])]
            counts[row["source"]][0] += int((np.diff(pack.targets[low:high].astype(int), prepend=0) == 1).sum())
            counts[row["source"]][1] += sum(message["role"] == "assistant" for message in row["messages"])
    return {name: (runs, answers) for name, (runs, answers) in counts.items()}


def test_the_last_answer_alone_is_trained_on_in_the_source_that_asks_for_it(cache, tiny_tokenizer_dir):
    built = packed(cache, tiny_tokenizer_dir, '[sources.office]\ntrain_on = "last"')
    assert num_answers(built, cache) == {"garden": (750, 750), "kitchen": (500, 500), "office": (100, 250)}
    assert built.manifest.targets == {"office": LAST}
    report = verify_cache(cache, None)
    assert report.problems == []
    assert report.checked[-1] == "targets of office: last, by the recipe"
    [line] = [line for line in tokenize_summary(built, 0.0).splitlines() if line.startswith("  office")]
    assert line.split()[-1] == "last"


def test_only_chunks_that_hold_rows_of_the_source_are_tokenised_anew_and_each_once(cache, tiny_tokenizer_dir):
    rule = '[sources.office]\nturns = "last"\nweight = 2.0'
    first, again = packed(cache, tiny_tokenizer_dir, rule), packed(cache, tiny_tokenizer_dir, rule)
    assert 100 <= first.tokenized < 300
    assert (again.tokenized, again.up_to_date) == (0, True)
    assert packed(cache, tiny_tokenizer_dir, rule.replace("2.0", "3.0")).tokenized == 0
    assert packed(cache, tiny_tokenizer_dir, "[sources.office]\nweight = 2.0").tokenized == 0
    assert packed(cache, tiny_tokenizer_dir, '[sources.office]\ntrain_on = "assistant"').manifest.targets == {}


def test_verify_notices_a_rule_that_the_masks_do_not_follow(cache, tiny_tokenizer_dir):
    built = packed(cache, tiny_tokenizer_dir, '[sources.office]\ntrain_on = "last"')
    path = built.folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    manifest["targets"]["office"]["train_on"] = "assistant"
    manifest.pop("checksum", None)
    path.write_text(json.dumps(manifest), encoding="utf-8")
    problems = verify_cache(cache, None).problems
    assert any(": its mask differs: " in problem for problem in problems)
    path.unlink()


def test_a_chunk_of_several_sources_holds_each_row_by_its_own_rules_in_order(bundle):
    given = [
        record(("user", f"q{n}"), ("assistant", "a"), ("user", "r"), ("assistant", f"b{n}"), source=source)
        for n, source in enumerate(["x", "y", "x", "z", "y"])
    ]
    given.append(record(("text", "Rinse the rice."), source="y"))
    rules = {"y": LAST, "z": TargetRules(turns="exact", train_on="assistant", thinking="keep")}
    mixed = TokenizeEngine.load(bundle, TokenOptions(), rules).tokenize(table(*given)).to_pylist()
    for row, expected in zip(mixed, given, strict=True):
        own = rules.get(expected["source"])
        options = TokenOptions(turns=own.turns, train_on=own.train_on) if own else TokenOptions()
        engine = TokenizeEngine.load(bundle, options)
        batch = tokenize_chunk(table(expected), engine.renderer, engine.encoder, engine.special, options)
        assert [row] == batch.to_pylist()


def test_the_key_of_a_chunk_is_that_of_the_rules_in_it_and_not_of_the_sources_names():
    chunks = [Chunk(start=0, stop=2, key="aa"), Chunk(start=2, stop=4, key="bb")]

    def keys(names: list[str], sources: list[int], rules: dict) -> list[str]:
        corpus = Corpus(ids=[], keys=np.empty(0, np.uint64), names=names, sources=np.array(sources, dtype=np.int32))
        return [chunk.key for chunk in keyed_chunks(chunks, corpus.names, corpus.sources, rules)]

    ruled = keys(["a", "b"], [0, 0, 0, 1], {"b": LAST})
    assert ruled[0] == "aa" and ruled[1] not in ("aa", "bb")
    assert keys(["m", "n", "o"], [0, 2, 2, 1], {"n": LAST}) == ruled
    assert keys(["a", "b"], [0, 0, 1, 0], {"b": LAST})[1] not in ruled
    assert keys(["a", "b"], [0, 0, 0, 1], {}) == ["aa", "bb"]
    other = TargetRules(turns="exact", train_on="assistant", thinking="keep")
    both = keys(["a", "b"], [0, 1, 0, 1], {"a": LAST, "b": other})
    assert both == keys(["b", "a"], [1, 0, 1, 0], {"a": LAST, "b": other})
    assert both != keys(["a", "b"], [0, 1, 0, 1], {"a": other, "b": LAST})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'sources.a.train_on = "lst"',
            'sources.a.train_on = "lst": expected one of assistant, last, tool-calls, all',
        ),
        ("default.turns = 1", "default.turns = 1: expected one of whole, last, exact"),
        ("sources.a.thinking = true", "sources.a.thinking = true: expected one of keep, drop, only"),
    ],
)
def test_a_wrong_rule_names_file_source_and_choices(tmp_path, text, message):
    (tmp_path / "mix.toml").write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_recipe(tmp_path / "mix.toml")
    assert str(caught.value) == f"--recipe {tmp_path / 'mix.toml'}: {message}"


def test_all_text_goes_with_whole_turns_only_by_source_too(tmp_path):
    (tmp_path / "mix.toml").write_text('sources."a*".train_on = "all"', encoding="utf-8")
    recipe = read_recipe(tmp_path / "mix.toml")
    with pytest.raises(InputError, match=r'mix\.toml: source ab: train_on = "all" goes with turns = "whole" only'):
        settle_targets(recipe, ["ab", "b"], TokenOptions(turns="exact"))


def test_the_report_finds_the_chunks_that_rules_by_source_made(cache, tiny_tokenizer_dir):
    built = packed(cache, tiny_tokenizer_dir, '[sources.office]\ntrain_on = "last"')
    conversations = cache / "conversations"
    cached = read_cached(cache, read_index(conversations, read_conversations_manifest(conversations)), built.manifest)
    assert cached is not None and len(cached.lengths) == 600
