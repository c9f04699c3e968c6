"""Strings of control tokens in messages: text, unless it is asked for otherwise."""

from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pytest
from corpus import record, table
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer

from dataprep.core.as_text import TextOnly, controls_pattern
from dataprep.core.encode import ByteLevelEncoder, ByteTable, OffsetEncoder
from dataprep.core.tokenizer import load_tokenizer
from dataprep.stages.tokenize import tokenize_chunk
from dataprep.tokenize.token_cache import TokenizeEngine
from dataprep.verify.reference import Reference
from schemas.manifest import TokenOptions

CONTROLS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>"]
PASTED = record(
    ("user", "What is <|im_end|> for?"),
    ("assistant", "<|im_end|> ends a turn.<|im_start|>"),
    ("user", "ok"),
    ("assistant", "早。"),
)
CLEAN = record(("user", "Hi"), ("assistant", "<think>\nhm\n</think>\n\nHello!"))


def engine_of(folder: Path, cache: Path, control_tokens: str) -> TokenizeEngine:
    return TokenizeEngine.load(load_tokenizer(str(folder), cache), TokenOptions(control_tokens=control_tokens))


def examples(engine: TokenizeEngine, *records: dict) -> list[dict]:
    given = (engine.renderer, engine.encoder, engine.special, engine.options)
    return tokenize_chunk(table(*records), *given).to_pylist()


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory) -> Path:
    """A cache in which each tokenizer is proven once."""
    return tmp_path_factory.mktemp("tokenizers")


@pytest.fixture(params=["tiny", "qwen3"])
def tokenizer_dir(request, tiny_tokenizer_dir) -> Path:
    if request.param == "tiny":
        return tiny_tokenizer_dir
    return request.getfixturevalue("shared") / "tokenizers" / "qwen3"


def test_pasted_control_tokens_stay_text_and_only_the_templates_own_are_control_ids(tokenizer_dir, tokenizers):
    engine = engine_of(tokenizer_dir, tokenizers, "text")
    clean, pasted, also_clean = examples(engine, CLEAN, PASTED, CLEAN)
    hf = AutoTokenizer.from_pretrained(tokenizer_dir)
    assert hf.decode(pasted["input_ids"]) == (
        "<|im_start|>user\nWhat is <|im_end|> for?<|im_end|>\n"
        "<|im_start|>assistant\n<|im_end|> ends a turn.<|im_start|><|im_end|>\n"
        "<|im_start|>user\nok<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n早。<|im_end|>\n"
    )
    controls = [hf.decode([number]) for number in pasted["input_ids"] if engine.special.is_control[number]]
    assert controls == ["<|im_start|>", "<|im_end|>"] * 4
    assert clean == also_clean
    assert (clean["notes"], pasted["notes"]) == ([], ["control tokens as text"])


def test_the_targets_of_such_a_conversation_are_its_texts_and_end_tokens(tokenizer_dir, tokenizers):
    [pasted] = examples(engine_of(tokenizer_dir, tokenizers, "text"), PASTED)
    hf = AutoTokenizer.from_pretrained(tokenizer_dir)
    mask = np.array([False, *pasted["assistant_masks"], False])
    runs = np.flatnonzero(np.diff(mask)).reshape(-1, 2).tolist()
    assert [hf.decode(pasted["input_ids"][low:high]) for low, high in runs] == [
        "<|im_end|> ends a turn.<|im_start|><|im_end|>",
        "早。<|im_end|>",
    ]


@pytest.mark.parametrize("control_tokens", ["text", "allow"])
def test_the_slow_reference_derives_the_same_ids_and_mask(tokenizer_dir, tokenizers, control_tokens):
    hf = AutoTokenizer.from_pretrained(tokenizer_dir)
    document = record(("text", "Texts end with <|endoftext|> here.<think>"))
    nfd = record(("user", "cafe\u0301<|im_end|>\u0301"), ("assistant", "<|im_start|>e\u0301te\u0301"))
    engine = engine_of(tokenizer_dir, tokenizers, control_tokens)
    reference = Reference(hf, TokenOptions(control_tokens=control_tokens))
    for given, example in zip(
        (PASTED, CLEAN, document, nfd), examples(engine, PASTED, CLEAN, document, nfd), strict=True
    ):
        derived = reference.derive(given)
        assert (example["reason"], example["input_ids"]) == (None, derived.ids.tolist())
        assert example["assistant_masks"] == derived.mask.tolist()
        assert derived.unshown == []


def test_conversations_may_be_turned_away_for_them(tiny_tokenizer_dir, tokenizers):
    pasted, clean = examples(engine_of(tiny_tokenizer_dir, tokenizers, "turn-away"), PASTED, CLEAN)
    assert (pasted["reason"], pasted["input_ids"]) == ("control-token-in-text", [])
    assert clean["reason"] is None


def test_they_may_become_control_tokens(tiny_tokenizer_dir, tokenizers):
    [pasted] = examples(engine_of(tiny_tokenizer_dir, tokenizers, "allow"), PASTED)
    hf = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    assert pasted["input_ids"].count(hf.convert_tokens_to_ids("<|im_end|>")) == 6
    assert pasted["notes"] == []


def test_without_such_strings_every_option_gives_the_same_ids(tiny_tokenizer_dir, tokenizers):
    first, *others = [
        examples(engine_of(tiny_tokenizer_dir, tokenizers, option), CLEAN) for option in ("text", "turn-away", "allow")
    ]
    assert others == [first, first]


def test_added_tokens_that_are_no_control_tokens_stay_what_they_are(tokenizer_dir):
    text = "<|im_start|>a<|im_end|><think>b</think><|im_end|>"
    only = TextOnly((tokenizer_dir / "tokenizer.json").read_text(encoding="utf-8"))
    spans = [found.span() for found in controls_pattern(CONTROLS).finditer(text)]
    pieced = only.encode(text, [spans[0], spans[2]], CONTROLS)
    hf = AutoTokenizer.from_pretrained(tokenizer_dir)
    tokens = [hf.decode([number]) for number in pieced.ids.tolist()]
    assert "".join(tokens) == text
    assert [token for token in tokens if token in (*CONTROLS, "<think>", "</think>")] == [
        "<|im_start|>",
        "<think>",
        "</think>",
        "<|im_end|>",
    ]


def test_bounds_count_in_the_encoders_unit(tiny_tokenizer_dir):
    tokenizer_json = (tiny_tokenizer_dir / "tokenizer.json").read_text(encoding="utf-8")
    text, controls = "<|im_start|>é<|im_end|>x<|im_end|>", [(0, 12), (24, 34)]
    table = ByteTable.of(orjson.loads(tokenizer_json))
    for encoder, total in ((ByteLevelEncoder(tokenizer_json, table, False), 35), (OffsetEncoder(tokenizer_json), 34)):
        encoding = encoder.encode_as_text(text, controls, CONTROLS)
        assert encoding.faithful.tolist() == [True]
        assert (encoding.starts[0], encoding.ends[-1], encoding.ends[-1] - encoding.starts[-1]) == (0, total, 10)
        assert encoding.starts[1:].tolist()[0] == 12
        assert encoder.cut("aé<|b", np.array([1, encoder.length("é"), 3])) == ["a", "é", "<|b"]


def word_tokenizer(prepend: str) -> str:
    """A tokenizer as SentencePiece makes them, which puts a blank before the `first` word of a text, or `never`."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend)
    tokenizer.decoder = decoders.Metaspace(prepend_scheme=prepend)
    special = ["<unk>", "<s>", "</s>"]
    trainer = trainers.BpeTrainer(vocab_size=120, special_tokens=special, show_progress=False)
    tokenizer.train_from_iterator(["how do they end", "a / < > s *"] * 9, trainer)
    return tokenizer.to_str()


def test_a_tokenizer_may_put_a_blank_before_the_first_word_only_or_never():
    text, controls = "<s>how</s> do<s>they", [(0, 3), (13, 16)]
    for prepend in ("first", "never"):
        encoding = OffsetEncoder(word_tokenizer(prepend)).encode_as_text(text, controls, ["<s>", "</s>"])
        tokenizer = Tokenizer.from_str(word_tokenizer(prepend))
        tokens = [tokenizer.id_to_token(number) for number in encoding.ids.tolist()]
        assert (tokens[0], tokens.count("<s>"), "</s>" in tokens) == ("<s>", 2, False)


def test_a_tokenizer_that_changes_texts_cannot_be_shown_and_is_refused():
    record = orjson.loads(word_tokenizer("never"))
    record["normalizer"] = orjson.loads(normalizers.Lowercase().__getstate__())
    encoder = OffsetEncoder(orjson.dumps(record).decode())
    assert encoder.encode_as_text("<s>How</s>", [(0, 3)], ["<s>", "</s>"]) is None


def test_the_table_is_that_of_the_schema(tiny_tokenizer_dir, tokenizers):
    engine = engine_of(tiny_tokenizer_dir, tokenizers, "text")
    batch = tokenize_chunk(table(PASTED), engine.renderer, engine.encoder, engine.special, engine.options)
    assert batch.column("notes").type == pa.list_(pa.string())
