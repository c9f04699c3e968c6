"""`--train-on`: whose messages are targets."""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
from corpus import record, table, write_jsonl

from dataprep.normalize.run import normalize_corpus
from dataprep.stages.tokenize import tokenize_chunk
from dataprep.tokenize.options import settled_options
from dataprep.tokenize.run import tokenize_corpus
from dataprep.tokenize.token_cache import TokenizeEngine
from dataprep.verify.cache import verify_cache
from schemas.errors import InputError
from schemas.manifest import PackOptions, TokenOptions

CALLS, ALL = TokenOptions(train_on="tool-calls"), TokenOptions(train_on="all")
CALL = {"id": "c1", "name": "look", "arguments": '{"n": 1}'}
LOOKED_UP = record(
    ("system", "Be kind."),
    ("user", "How many?"),
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "content": "3", "tool_call_id": "c1"},
    ("assistant", "Three."),
)
PLAIN = record(("user", "Hi"), ("assistant", "Hello!"))
CALLED = '<tool_call>\n{"name": "look", "arguments": {"n": 1}}\n</tool_call><|im_end|>'


def tokenized(bundle, options: TokenOptions, *records: dict) -> list[dict]:
    engine = TokenizeEngine.load(bundle, options)
    return tokenize_chunk(table(*records), engine.renderer, engine.encoder, engine.special, options).to_pylist()


def said(hf, row: dict) -> list[str]:
    """The decoded runs of targets."""
    edges = np.flatnonzero(np.diff(np.array([False, *row["assistant_masks"], False]))).reshape(-1, 2)
    return [hf.decode(row["input_ids"][a:b]) for a, b in edges.tolist()]


def test_only_turns_with_tool_calls_are_targets(bundle, hf):
    looked_up, plain = tokenized(bundle, CALLS, LOOKED_UP, PLAIN)
    assert said(hf, looked_up) == [CALLED]
    assert (plain["reason"], plain["detail"]) == ("no-targets", "no assistant message is to be trained on")


def test_the_last_tool_call_alone(bundle, hf):
    twice = record(*[turn for _ in range(2) for turn in LOOKED_UP["messages"][1:]])
    [row] = tokenized(bundle, replace(CALLS, turns="last"), twice)
    assert said(hf, row) == [CALLED]
    assert row["input_ids"].count(row["input_ids"][-2]) > 2


def test_system_and_tool_output_are_targets_only_when_all_is_asked_for(bundle, hf):
    [usual] = tokenized(bundle, TokenOptions(), LOOKED_UP)
    [everything] = tokenized(bundle, ALL, LOOKED_UP)
    assert not any("Be kind" in text or "<tool_response>" in text for text in said(hf, usual))
    assert everything["assistant_masks"] == [False] + [True] * (len(everything["input_ids"]) - 1)
    assert everything["input_ids"] == usual["input_ids"]


def test_an_answer_marked_otherwise_is_context_among_all_the_rest(bundle, hf):
    given = record(
        ("user", "a"), {"role": "assistant", "content": "no", "train": False}, ("user", "b"), ("assistant", "yes")
    )
    [row] = tokenized(bundle, ALL, given)
    first, second = said(hf, row)
    assert (first[-10:], second[:20]) == ("assistant\n", "\n<|im_start|>user\nb<")


def test_a_document_is_trained_on_whatever_is_asked_of_conversations(bundle):
    given = record(("text", "Rinse the rice."))
    for options in (CALLS, ALL, TokenOptions(turns="last"), TokenOptions(turns="exact")):
        [row] = tokenized(bundle, options, given)
        assert row["assistant_masks"] == [False] + [True] * (len(row["input_ids"]) - 1)


def test_all_text_goes_with_whole_turns_only(bundle):
    with pytest.raises(InputError, match="--train-on all: goes with --turns whole only, not with --turns exact"):
        settled_options(replace(ALL, turns="exact"), bundle, date(2026, 1, 31))


@pytest.mark.parametrize("options", [ALL, CALLS], ids=["all", "tool-calls"])
def test_verify_derives_the_same_targets(tiny_tokenizer_dir, tmp_path, options):
    dialogues = [[("user", "Hi"), ("assistant", f"Hello {number}!")] for number in range(5)]
    raw = write_jsonl(tmp_path / "raw.jsonl", dialogues)
    normalize_corpus([str(raw)], tmp_path / "cache", workers=1)
    packing = PackOptions(seq_len=128, overflow="cut", val_fraction=0.0, seed=0)
    if options.train_on == "tool-calls":
        with pytest.raises(InputError, match="no conversation is left to train on; see"):
            tokenize_corpus(tmp_path / "cache", str(tiny_tokenizer_dir), packing, 1, None, options)
        return
    built = tokenize_corpus(tmp_path / "cache", str(tiny_tokenizer_dir), packing, 1, None, options)
    assert built.manifest.ledger.tokens.context == 5
    assert verify_cache(tmp_path / "cache", None).problems == []
