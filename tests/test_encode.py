import numpy as np
import orjson
import pytest
from tokenizers import Tokenizer

from dataprep.core.encode import ByteTable, OffsetEncoder, choose_encoder, is_byte_level
from dataprep.core.probes import probe_texts, prove_fast
from dataprep.core.tokenizer import load_tokenizer

TEXTS = [
    "Rinse the rice.",
    "",
    "请问怎样才能睡得更好？",
    "<|im_start|>user\nHi<|im_end|>\n",
    "👩‍👩‍👧 naïve ½",
    "a\n\n\n b",
]

BYTES = np.array([len(text.encode()) for text in TEXTS])


@pytest.fixture(scope="module")
def tokenizer_json(tiny_tokenizer_dir) -> str:
    return (tiny_tokenizer_dir / "tokenizer.json").read_text(encoding="utf-8")


def encoder_of(tokenizer_json: str, fast: bool):
    return choose_encoder(tokenizer_json, ByteTable.of(orjson.loads(tokenizer_json)), fast)


@pytest.mark.parametrize("fast", [True, False])
def test_byte_level_ids_are_the_reference_and_their_bounds_cut_the_bytes(tokenizer_json, fast):
    encoding = encoder_of(tokenizer_json, fast).encode(TEXTS, BYTES)
    reference = Tokenizer.from_str(tokenizer_json)
    joined = "".join(TEXTS).encode()
    for number, text in enumerate(TEXTS):
        low, high = encoding.text_tokens[number : number + 2]
        expected = reference.encode(text, add_special_tokens=False)
        assert encoding.ids[low:high].tolist() == expected.ids
    cut = [joined[a:b] for a, b in zip(encoding.starts.tolist(), encoding.ends.tolist(), strict=True)]
    assert b"".join(cut) == joined
    assert encoding.faithful.all()


def test_ids_that_do_not_spell_their_text_are_found(tokenizer_json):
    encoder = encoder_of(tokenizer_json, False)
    right = encoder._ids

    def one_id_off(texts):
        ids, bounds = right(texts)
        ids = ids.copy()
        ids[bounds[2]] += 1
        return ids, bounds

    encoder._ids = one_id_off
    assert encoder.encode(TEXTS, BYTES).faithful.tolist() == [True, True, False, True, True, True]


def test_a_text_that_is_misspelled_is_found_beside_one_of_another_length(tokenizer_json):
    encoder = encoder_of(tokenizer_json, False)
    other = dict(zip(TEXTS, ["Rinse the rice.", "", "请问怎样才能睡得更香？", *TEXTS[3:5], "a\n\n b"], strict=True))
    right = encoder._ids
    encoder._ids = lambda texts: right([other[text] for text in texts])
    encoding = encoder.encode([*TEXTS, TEXTS[0]], np.append(BYTES, BYTES[0]))
    assert encoding.faithful.tolist() == [True, True, False, True, True, False, True]
    assert encoding.starts[encoding.text_tokens[-2]] == BYTES.sum()


def test_offsets_give_the_same_bounds_in_characters(tokenizer_json):
    texts = [text for text in TEXTS if text.isascii()]  # where bytes and characters count alike
    lengths = np.array([len(text) for text in texts])
    by_bytes = encoder_of(tokenizer_json, False).encode(texts, lengths)
    by_offsets = OffsetEncoder(tokenizer_json).encode(texts, lengths)
    assert by_bytes.ids.tolist() == by_offsets.ids.tolist()
    assert by_bytes.starts.tolist() == by_offsets.starts.tolist()
    assert by_bytes.ends.tolist() == by_offsets.ends.tolist()


def test_the_probe_set_holds_every_token_of_the_vocabulary(tokenizer_json):
    record = orjson.loads(tokenizer_json)
    joined = "\n".join(probe_texts(record))
    tokens = Tokenizer.from_str(tokenizer_json)
    words = [tokens.decode([number], skip_special_tokens=False) for number in range(tokens.get_vocab_size())]
    assert [word for word in words if "\ufffd" not in word and word not in joined] == []


def test_fastokens_is_proven_for_a_tokenizer_it_reads_alike(tokenizer_json):
    proof = prove_fast(tokenizer_json, orjson.loads(tokenizer_json))
    assert proof.equal, proof.note
    assert "gave Hugging Face's ids on" in proof.note


def test_little_text_gets_its_ids_by_the_reference_and_they_are_the_same(tiny_tokenizer_dir, tmp_path):
    tokenizer = load_tokenizer(str(tiny_tokenizer_dir), tmp_path)
    assert [tokenizer.is_fast(), tokenizer.is_fast(1 << 20), tokenizer.is_fast(10_000)] == [True, True, False]
    much, little = (tokenizer.encoder(text_bytes).encode(TEXTS, BYTES) for text_bytes in (1 << 20, 10_000))
    assert much.ids.tolist() == little.ids.tolist()
    assert much.text_tokens.tolist() == little.text_tokens.tolist()


def test_fastokens_is_not_used_for_a_tokenizer_of_another_kind(tokenizer_json):
    record = orjson.loads(tokenizer_json)
    record["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    assert not is_byte_level(record)
    assert prove_fast(orjson.dumps(record).decode(), record).note == "not a byte-level BPE"
