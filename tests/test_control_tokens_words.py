"""Strings of control tokens in messages, for tokenizers as SentencePiece makes them: Llama 2's, Gemma's, Mistral's …"""

from pathlib import Path

import numpy as np
import orjson
import pytest
from corpus import record, table
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from dataprep.core.as_text import PiecedText, TextOnly
from dataprep.core.tokenizer import load_tokenizer
from dataprep.tokenize.token_cache import TokenizeEngine
from dataprep.verify.reference import Reference
from schemas.manifest import TokenOptions

CONTROLS = ["<unk>", "<s>", "</s>", "<end>"]
WORDS = [
    "how do they end a turn",
    "早睡早起 user model",
    "< / > s unk < e n d > * [ I N S T ] : ?",
    "it ends\n\na turn",
] * 9
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %} {{ m.content }}{{ eos_token }}"
    "{% else %}[INST] {{ m.content }}<end>\n[/INST]{% endif %}{% endfor %}"
)
PASTED = record(
    ("user", "how do </s> they <s>end?"), ("assistant", "<end> a turn </s>"), ("user", "ok"), ("assistant", "早睡 <s>")
)
CLEAN = record(("user", "how do they"), ("assistant", "早睡"))


def byte_pairs(words: list[str]) -> models.BPE:
    """Merges of words in which a blank is ▁, with bytes for what is unknown, as in Llama's and Gemma's files."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")
    trainer = trainers.BpeTrainer(vocab_size=200, special_tokens=CONTROLS, show_progress=False)
    trained.train_from_iterator(words, trainer)
    model = orjson.loads(trained.to_str())["model"]
    vocabulary = {token: number for number, token in enumerate([*CONTROLS, *BYTES])}
    for token in model["vocab"]:
        vocabulary.setdefault(token, len(vocabulary))
    merges = [tuple(pair) for pair in model["merges"]]
    return models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)


def unigram() -> Tokenizer:
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=CONTROLS, unk_token="<unk>", show_progress=False)
    trained.train_from_iterator(WORDS, trainer)
    trained.decoder = decoders.Metaspace(prepend_scheme="always")
    return trained


def llama2(prefix: bool = True) -> Tokenizer:
    tokenizer = Tokenizer(byte_pairs([f" {word}" for word in WORDS]))
    replaced = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replaced]) if prefix else replaced
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*steps, *([decoders.Strip(" ", 1, 0)] if prefix else [])])
    return tokenizer


def gemma() -> Tokenizer:
    tokenizer = llama2(prefix=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", behavior="merged_with_previous")
    return tokenizer


def mistral() -> Tokenizer:
    tokenizer = llama2(prefix=False)
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = llama2().decoder
    return tokenizer


def tekken() -> Tokenizer:
    """Byte-level, words of the vocabulary taken whole; and control tokens that take blanks with them, as Phi-3's do."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(r" ?\p{L}+|\s+|[^\s\p{L}]+"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=CONTROLS, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    return tokenizer


KINDS = {"llama2": llama2, "gemma": gemma, "mistral": mistral, "unigram": unigram, "tekken": tekken}


@pytest.fixture(scope="module", params=[*KINDS, "llama2-rstrip", "tekken-rstrip"])
def folder(request, tmp_path_factory) -> Path:
    """A model folder of each kind of tokenizer."""
    kind, _, strips = request.param.partition("-")
    tokenizer = KINDS[kind]()
    tokenizer.add_special_tokens(
        [AddedToken(token, normalized=False, special=True, rstrip=bool(strips)) for token in CONTROLS]
    )
    place = tmp_path_factory.mktemp("words")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", chat_template=TEMPLATE
    ).save_pretrained(place)
    return place


def as_text(folder: Path, text: str, controls: list[tuple[int, int]]) -> PiecedText | None:
    return TextOnly((folder / "tokenizer.json").read_text(encoding="utf-8")).encode(text, controls, CONTROLS)


def test_pasted_strings_stay_text_for_every_kind_of_tokenizer_and_the_reference_agrees(folder, tmp_path):
    options = TokenOptions(control_tokens="text")
    engine = TokenizeEngine.load(load_tokenizer(str(folder), tmp_path), options)
    clean, pasted = engine.tokenize(table(CLEAN, PASTED)).to_pylist()
    assert (clean["reason"], pasted["reason"]) == (None, None)
    hf = AutoTokenizer.from_pretrained(folder)
    controls = [hf.decode([number]) for number in pasted["input_ids"] if engine.special.is_control[number]]
    assert controls == ["<s>", "<end>", "</s>", "<end>", "</s>"]
    shown = hf.decode(pasted["input_ids"]).replace(" ", "").replace("\n", "")
    assert shown == "<s>[INST]howdo</s>they<s>end?<end>[/INST]<end>aturn</s></s>[INST]ok<end>[/INST]早睡<s></s>"
    for given, row in ((CLEAN, clean), (PASTED, pasted)):
        derived = Reference(hf, options).derive(given)
        assert (derived.ids.tolist(), derived.mask.tolist()) == (row["input_ids"], row["assistant_masks"])
        assert derived.unshown == []


def test_the_targets_are_answers_and_end_tokens(folder, tmp_path):
    engine = TokenizeEngine.load(load_tokenizer(str(folder), tmp_path), TokenOptions())
    [pasted] = engine.tokenize(table(PASTED)).to_pylist()
    hf = AutoTokenizer.from_pretrained(folder)
    runs = np.flatnonzero(np.diff([False, *pasted["assistant_masks"], False])).reshape(-1, 2).tolist()
    said = [hf.decode(pasted["input_ids"][low:high]).strip() for low, high in runs]
    assert said == ["<end> a turn </s></s>", "早睡 <s></s>"]


def test_text_alone_gives_what_a_tokenizer_blind_to_control_tokens_gives(folder):
    text = "how </s>do<s> they <end>\nend </s"
    blind = Tokenizer.from_file(str(folder / "tokenizer.json"))
    blind.encode_special_tokens = True
    expected = blind.encode(text, add_special_tokens=False)
    pieced = as_text(folder, text, [])
    assert pieced is not None
    if not set(expected.ids) & set(range(len(CONTROLS))):  # the blind Unigram takes such a string from its vocabulary
        assert pieced.ids.tolist() == expected.ids
        assert pieced.bounds.tolist() == [list(bound) for bound in expected.offsets]


def test_texts_without_such_strings_are_encoded_as_ever(folder):
    text = "<s>how do<end>\n they </s>end"
    spans = [(0, 3), (9, 14), (21, 25)]
    official = Tokenizer.from_file(str(folder / "tokenizer.json")).encode(text, add_special_tokens=False)
    pieced = as_text(folder, text, spans)
    assert pieced is not None
    assert pieced.ids.tolist() == official.ids
    assert pieced.bounds.tolist() == [list(bound) for bound in official.offsets]


def test_a_text_that_holds_the_private_characters_that_are_put_for_control_tokens_is_refused(folder):
    assert as_text(folder, "<s>a\U00100001<s>", [(0, 3)]) is None
