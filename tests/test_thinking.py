"""`--thinking` and `--template-arg`: what becomes of reasoning, and what the chat template is told."""

from datetime import date
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from corpus import record, table, write_jsonl
from transformers import AutoTokenizer

from dataprep.core.tokenizer import load_tokenizer
from dataprep.normalize.run import normalize_corpus
from dataprep.stages.tokenize import tokenize_chunk
from dataprep.tokenize.options import parsed_arguments, settled_options
from dataprep.tokenize.run import tokenize_corpus
from dataprep.tokenize.token_cache import TokenizeEngine, tokens_fingerprint
from dataprep.verify.cache import verify_cache
from dataprep.verify.reference import Reference
from schemas.errors import InputError
from schemas.manifest import PackOptions, TokenOptions

DATED = (
    "<|im_start|>system\nToday is {{ strftime_now('%d %b %Y') }}.<|im_end|>\n"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
THOUGHT = record(
    ("user", "1+1?"),
    {"role": "assistant", "content": "2", "reasoning": "one and one"},
    ("user", "2+2?"),
    ("assistant", "4"),
)
PLAIN = record(("user", "Hi"), ("assistant", "Hello!"))


@pytest.fixture(scope="module")
def dated_dir(tiny_tokenizer_dir, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dated")
    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    tokenizer.chat_template = DATED
    tokenizer.save_pretrained(folder)
    return folder


def tokenized(bundle, options: TokenOptions, *records: dict) -> list[dict]:
    engine = TokenizeEngine.load(bundle, options)
    return tokenize_chunk(table(*records), engine.renderer, engine.encoder, engine.special, options).to_pylist()


def said(hf, row: dict) -> list[list[str]]:
    """The decoded runs of targets of each example."""
    texts = []
    for low, high in pairwise(np.cumsum([0, *row["example_lengths"]]).tolist()):
        edges = np.flatnonzero(np.diff(np.array([False, *row["assistant_masks"][low:high], False]))).reshape(-1, 2)
        texts.append([hf.decode(row["input_ids"][low + a : low + b]) for a, b in edges.tolist()])
    return texts


def test_dropped_reasoning_leaves_what_the_answers_alone_would_give(bundle):
    bare = record(("user", "1+1?"), ("assistant", "2"), ("user", "2+2?"), ("assistant", "4"))
    [dropped] = tokenized(bundle, TokenOptions(thinking="drop"), THOUGHT)
    [expected] = tokenized(bundle, TokenOptions(), bare)
    assert dropped == expected


def test_only_turns_with_reasoning_are_trained_on_and_the_others_are_context(bundle, hf):
    thought, plain = tokenized(bundle, TokenOptions(thinking="only", turns="exact"), THOUGHT, PLAIN)
    assert said(hf, thought) == [["<think>\none and one\n</think>\n\n2<|im_end|>"]]
    assert (plain["reason"], plain["detail"]) == ("no-reasoning", "none of its messages has reasoning")


def test_a_turn_whose_reasoning_the_template_leaves_out_does_not_count_as_having_it(bundle):
    later = record(
        ("user", "1+1?"),
        {"role": "assistant", "content": "2", "reasoning": "one and one"},
        ("user", "2+2?"),
        {"role": "assistant", "content": "4", "reasoning": "two and two"},
    )
    [row] = tokenized(bundle, TokenOptions(thinking="only"), later)
    assert (row["trained_turns"], row["left_out_turns"]) == (1, [("reasoning-left-out", 1)])


def test_documents_have_no_reasoning(bundle):
    [row] = tokenized(bundle, TokenOptions(thinking="only"), record(("text", "Rinse the rice.")))
    assert row["reason"] == "no-reasoning"


def test_an_argument_of_the_template_decides_the_prompt(bundle, hf):
    off, on = ({"enable_thinking": value} for value in (False, True))
    [without] = tokenized(bundle, TokenOptions(template_args=off), PLAIN)
    [within] = tokenized(bundle, TokenOptions(template_args=on), PLAIN)
    assert without["input_ids"] == within["input_ids"]
    assert said(hf, without) == [["Hello!<|im_end|>"]]
    assert said(hf, within) == [["<think>\n\n</think>\n\nHello!<|im_end|>"]]  # which inference asks for so
    assert without["differing_turns"] == within["differing_turns"] == without["prompts"] == []


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize("turns", ["whole", "exact"])
def test_with_an_argument_ids_and_masks_are_what_transformers_gives_with_it(bundle, hf, turns, value):
    options = TokenOptions(turns=turns, template_args={"enable_thinking": value})
    two = record(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    reference = Reference(hf, options)
    for row, given in zip(tokenized(bundle, options, THOUGHT, PLAIN, two), (THOUGHT, PLAIN, two), strict=True):
        derived = reference.derive(given)
        assert (derived.ids.tolist(), derived.mask.tolist()) == (row["input_ids"], row["assistant_masks"])
        assert derived.unshown == []


def test_arguments_are_json_or_text():
    given = ["enable_thinking=false", "n=3", "date_string=1 Jan 2026", 'tags=["a"]', "x=NaN", "empty="]
    assert parsed_arguments(given) == {
        "enable_thinking": False,
        "n": 3,
        "date_string": "1 Jan 2026",
        "tags": ["a"],
        "x": "NaN",
        "empty": "",
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["thinking"], "--template-arg thinking: expected NAME=VALUE, such as enable_thinking=false"),
        (["a=1", "a=2"], "--template-arg a=2: a is given twice"),
    ],
)
def test_what_is_no_argument_is_refused(given, message):
    with pytest.raises(InputError, match=message):
        parsed_arguments(given)


def test_an_argument_that_the_template_does_not_ask_for_is_refused_with_those_it_does(bundle):
    options = TokenOptions(template_args={"thinking": False})
    with pytest.raises(
        InputError, match="--template-arg thinking: the chat template doesn't ask for it; it asks for ena"
    ):
        settled_options(options, bundle, date(2026, 1, 31))


def test_the_day_that_a_template_tells_is_fixed_and_part_of_the_fingerprint(dated_dir, tmp_path, bundle):
    dated = load_tokenizer(str(dated_dir), tmp_path)
    first, second = (settled_options(TokenOptions(), dated, date(2026, 1, day)) for day in (30, 31))
    assert second.template_args == {"strftime_now": "2026-01-31"}
    assert tokens_fingerprint(dated, first) != tokens_fingerprint(dated, second)
    chosen = settled_options(TokenOptions(template_args={"strftime_now": "2026-01-31"}), dated, date(2026, 5, 5))
    assert chosen == second
    assert settled_options(TokenOptions(), bundle, date(2026, 1, 31)) == TokenOptions()
    with pytest.raises(InputError, match="strftime_now=May: expected a day as YYYY-MM-DD"):
        settled_options(TokenOptions(template_args={"strftime_now": "May"}), dated, date(2026, 5, 5))


def test_a_cache_with_a_day_is_verified_on_any_other_day(dated_dir, tmp_path):
    raw = write_jsonl(tmp_path / "raw.jsonl", [[("user", "Hi"), ("assistant", "Hello!")]])
    normalize_corpus([str(raw)], tmp_path / "cache", workers=1)
    packing = PackOptions(seq_len=128, overflow="cut", val_fraction=0.0, seed=0)
    options = TokenOptions(template_args={"strftime_now": "2001-02-03"})
    built = tokenize_corpus(tmp_path / "cache", str(dated_dir), packing, 1, None, options)
    assert built.manifest.token_options == options
    assert verify_cache(tmp_path / "cache", None).problems == []
