import numpy as np
import pytest
from corpus import record, table

from dataprep.core.tokenizer import load_tokenizer
from dataprep.stages.tokenize import tokenize_chunk
from dataprep.tokenize.token_cache import TokenizeEngine
from dataprep.verify.cache import Reference


@pytest.fixture(scope="module")
def engine(tiny_tokenizer_dir, tmp_path_factory) -> TokenizeEngine:
    return TokenizeEngine.load(load_tokenizer(str(tiny_tokenizer_dir), tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def hf(tiny_tokenizer_dir):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_tokenizer_dir)


def examples(engine: TokenizeEngine, *records: dict) -> list[dict]:
    return tokenize_chunk(table(*records), engine.renderer, engine.encoder, engine.special).to_pylist()


def trained_text(hf, example: dict) -> list[str]:
    """The decoded runs of targets."""
    mask = np.array([False, *example["assistant_masks"], False])
    edges = np.flatnonzero(np.diff(mask)).reshape(-1, 2)
    return [hf.decode(example["input_ids"][a:b]) for a, b in edges.tolist()]


TWO_TURNS = record(("user", "Hi"), ("assistant", "Hello!"), ("user", "怎么睡得更好？"), ("assistant", "早睡。"))
CALL = {"id": "c1", "name": "look", "arguments": '{"n": 1.0, "s": "é"}'}
WITH_TOOLS = record(
    ("user", "How many?"),
    {"role": "assistant", "tool_calls": [CALL]},
    {"role": "tool", "content": '{"n": 3}', "tool_call_id": "c1"},
    ("assistant", "Three."),
    tools=[{"type": "function", "function": {"name": "look", "parameters": {"n": {"type": "number"}}}}],
)
REASONED = record(("user", "2+2?"), {"role": "assistant", "content": "4", "reasoning": "two and two"})


@pytest.mark.parametrize("given", [TWO_TURNS, WITH_TOOLS, REASONED], ids=["turns", "tools", "reasoning"])
def test_ids_equal_apply_chat_template_and_the_mask_its_slow_derivation(engine, hf, given):
    [example] = examples(engine, given)
    ids, mask = Reference(hf).example(given)
    assert example["reason"] is None
    assert example["input_ids"] == ids.tolist()
    assert example["assistant_masks"] == mask.tolist()


def test_targets_are_the_assistant_texts_and_their_end_tokens(engine, hf):
    assert trained_text(hf, examples(engine, TWO_TURNS)[0]) == ["Hello!<|im_end|>", "早睡。<|im_end|>"]


def test_tool_calls_are_trained_on_and_tool_output_is_not(engine, hf):
    assert trained_text(hf, examples(engine, WITH_TOOLS)[0]) == [
        '<tool_call>\n{"name": "look", "arguments": {"n": 1.0, "s": "é"}}\n</tool_call><|im_end|>',
        "Three.<|im_end|>",
    ]


def test_turn_bounds_allow_a_cut_after_each_answer(engine, hf):
    [example] = examples(engine, TWO_TURNS)
    first_end, second_start = example["turn_ends"][0], example["turn_starts"][1]
    assert hf.decode(example["input_ids"][:first_end]).endswith("assistant\nHello!<|im_end|>")
    assert hf.decode(example["input_ids"][second_start:]).startswith("<|im_start|>user\n怎么")


def test_a_turn_marked_train_false_is_context(engine, hf):
    given = record(
        ("user", "a"), {"role": "assistant", "content": "no", "train": False}, ("user", "b"), ("assistant", "yes")
    )
    assert trained_text(hf, examples(engine, given)[0]) == ["yes<|im_end|>"]


def test_a_document_trains_on_all_but_its_first_token(engine, hf):
    [example] = examples(engine, record(("text", "Rinse the rice.")))
    assert hf.decode(example["input_ids"]) == "Rinse the rice.<|im_end|>"
    assert example["assistant_masks"] == [False] + [True] * (len(example["input_ids"]) - 1)
    assert example["turn_ends"] == []


def test_text_that_is_not_nfc_is_encoded_as_the_tokenizer_does(engine, hf):
    given = record(("user", "cafe\u0301"), ("assistant", "e\u0301te\u0301"))
    [example] = examples(engine, given)
    assert example["input_ids"] == Reference(hf).example(given)[0].tolist()
    assert trained_text(hf, example) == ["été<|im_end|>"]


@pytest.mark.parametrize(
    ("given", "reason", "detail"),
    [
        (
            record(("user", "a"), ("assistant", "\n\nb"), ("user", "c"), ("assistant", "d")),
            "bound-inside-token",
            "message 2: a token reaches across its bounds",
        ),
        (
            record(("user", "a"), {"role": "assistant", "content": "b", "train": False}),
            "no-targets",
            "no assistant message is to be trained on",
        ),
    ],
    ids=["straddling token", "nothing to train"],
)
def test_what_cannot_be_shown_is_turned_away_with_a_reason(engine, given, reason, detail):
    good, bad, also_good = examples(engine, TWO_TURNS, given, TWO_TURNS)
    assert (bad["reason"], bad["input_ids"]) == (reason, [])
    assert bad["detail"].startswith(detail)
    assert good["input_ids"] == also_good["input_ids"] != []


def test_many_conversations_at_once_give_what_each_gives_alone(engine):
    given = [TWO_TURNS, WITH_TOOLS, REASONED, record(("text", "Water it.")), record(("user", "x"), ("assistant", "y"))]
    assert examples(engine, *given) == [examples(engine, one)[0] for one in given]


def test_without_a_chat_template_only_documents_are_kept(engine):
    given = table(TWO_TURNS, record(("text", "Water it.")))
    kept = tokenize_chunk(given, None, engine.encoder, engine.special).to_pylist()
    assert [example["reason"] for example in kept] == ["no-chat-template", None]


def test_a_chunk_of_which_nothing_is_kept_is_empty_but_counted(engine):
    bad = record(("user", "a"), {"role": "assistant", "content": "b", "train": False})
    refused = tokenize_chunk(table(TWO_TURNS), None, engine.encoder, engine.special).to_pylist()
    assert [example["input_ids"] for example in examples(engine, bad) + refused] == [[], []]
