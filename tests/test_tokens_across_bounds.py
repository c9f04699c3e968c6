"""Tokens that reach across the bounds of an answer: targets start behind the template's own, others are turned away."""

import json
from pathlib import Path

import pytest
from corpus import record, table
from test_tokenize import examples, trained_text
from transformers import AutoTokenizer

from dataprep.core.tokenizer import load_tokenizer
from dataprep.stages.tokenize import tokenize_chunk
from dataprep.template.probes import PROBES
from dataprep.template.proof import PROVEN, prove
from dataprep.template.subject import load_subject
from dataprep.tokenize.token_cache import TokenizeEngine
from dataprep.verify.reference import Reference
from schemas.manifest import TokenOptions

# Prompts end with "<think>\n"; an answer that wasn't thought about goes on with "\n</think>\n\n".
THINKS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}<think>\n{{ m.reasoning_content or '' }}\n</think>\n\n{% endif %}"
    "{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
)
PLAIN = record(("user", "Hi"), ("assistant", "Hello!"), ("user", "2+2?"), ("assistant", "4"))
MIXED = record(
    ("user", "Hi"), ("assistant", "Hello!"), ("user", "2+2?"), {"role": "assistant", "content": "4", "reasoning": "sum"}
)


def engine_of(folder: Path, place: Path, template: str, options: TokenOptions | None = None) -> TokenizeEngine:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(place / "model")
    return TokenizeEngine.load(load_tokenizer(str(place / "model"), place), options or TokenOptions())


def test_where_a_token_of_the_template_reaches_over_the_end_of_the_prompt_targets_start_behind_it(
    tiny_tokenizer_dir, tmp_path
):
    engine = engine_of(tiny_tokenizer_dir, tmp_path, THINKS)
    hf = AutoTokenizer.from_pretrained(tmp_path / "model")
    plain, mixed = examples(engine, PLAIN, MIXED)
    assert trained_text(hf, plain) == ["</think>\n\nHello!<|im_end|>", "</think>\n\n4<|im_end|>"]
    assert trained_text(hf, mixed) == ["</think>\n\nHello!<|im_end|>", "sum\n</think>\n\n4<|im_end|>"]
    assert hf.decode(plain["input_ids"]).startswith(
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n<think>\n\n"
    )


def test_such_turns_are_counted_by_name_and_remain_with_exact_turns(tiny_tokenizer_dir, tmp_path):
    engine = engine_of(tiny_tokenizer_dir, tmp_path, THINKS)
    plain, mixed = examples(engine, PLAIN, MIXED)
    assert (plain["trained_turns"], plain["differing_turns"]) == (2, [("prompt-inside-token", 2)])
    assert (mixed["trained_turns"], mixed["differing_turns"]) == (2, [("prompt-inside-token", 1)])
    assert [row["remaining_turns"] for row in (plain, mixed)] == [2, 1]
    exact = TokenOptions(turns="exact")
    split = engine_of(tiny_tokenizer_dir, tmp_path / "exact", THINKS, exact)
    rows = tokenize_chunk(table(PLAIN, MIXED), split.renderer, split.encoder, split.special, exact).to_pylist()
    assert [row["differing_turns"] for row in rows] == [[("prompt-inside-token", 2)], [("prompt-inside-token", 1)]]
    assert [row["assistant_masks"] for row in rows] == [plain["assistant_masks"], mixed["assistant_masks"]]


@pytest.mark.parametrize(
    "options",
    [TokenOptions(), TokenOptions(turns="exact"), TokenOptions(train_on="all")],
    ids=["whole", "exact", "all"],
)
def test_the_slow_way_gives_the_same_mask_and_the_same_name(tiny_tokenizer_dir, tmp_path, options):
    engine = engine_of(tiny_tokenizer_dir, tmp_path, THINKS, options)
    reference = Reference(AutoTokenizer.from_pretrained(tmp_path / "model"), options)
    for given in (PLAIN, MIXED):
        [row] = tokenize_chunk(table(given), engine.renderer, engine.encoder, engine.special, options).to_pylist()
        derived = reference.derive(given)
        assert (derived.ids.tolist(), derived.mask.tolist()) == (row["input_ids"], row["assistant_masks"])
        assert derived.unshown == []
        assert sorted(derived.turns.differ.items()) == sorted(row["differing_turns"])
        assert derived.turns.remain == row["remaining_turns"]


def test_a_token_that_holds_text_of_a_message_is_not_split_around(tiny_tokenizer_dir, tmp_path):
    engine = engine_of(tiny_tokenizer_dir, tmp_path, THINKS)
    thought = {"role": "assistant", "content": "4", "reasoning": "\nsum"}
    [row] = examples(engine, record(("user", "2+2?"), thought))
    assert (row["reason"], row["detail"]) == ("bound-inside-token", "message 2: a token reaches across its bounds")


def test_an_empty_text_between_the_templates_own_is_no_text(tiny_tokenizer_dir, tmp_path):
    calls = "{% for c in m.tool_calls or [] %}{{ '\\n' }}<tool_call>{{ c.function.name }}</tool_call>{% endfor %}"
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}" + calls + "<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    engine = engine_of(tiny_tokenizer_dir, tmp_path, template)
    hf = AutoTokenizer.from_pretrained(tmp_path / "model")
    call = {"id": "c1", "name": "look", "arguments": "{}"}
    rows = [
        record(("user", "Where?"), {"role": "assistant", "content": content, "tool_calls": [call]})
        for content in ("", "So.", "\n", " look")
    ]
    empty, said, blank, text = examples(engine, *rows)
    assert trained_text(hf, empty) == ["<tool_call>look</tool_call><|im_end|>"]
    assert empty["differing_turns"] == [("prompt-inside-token", 1)]
    assert trained_text(hf, said) == ["So.\n<tool_call>look</tool_call><|im_end|>"]
    assert (blank["reason"], text["reason"]) == ("bound-inside-token", None)
    reference = Reference(hf)
    for given, row in ((rows[0], empty), (rows[1], said)):
        derived = reference.derive(given)
        assert (derived.mask.tolist(), derived.unshown) == (row["assistant_masks"], [])


def test_an_end_token_that_takes_the_blanks_behind_it_is_a_target(tiny_tokenizer_dir, tmp_path):
    taking = with_end(tiny_tokenizer_dir, tmp_path / "taking", rstrip=True)
    engine = engine_of(taking, tmp_path, THINKS)
    hf = AutoTokenizer.from_pretrained(tmp_path / "model")
    [row] = examples(engine, MIXED)
    ends = [hf.convert_ids_to_tokens(row["input_ids"])[end - 1] for end in row["turn_ends"]]
    assert (row["reason"], ends) == (None, ["<|im_end|>", "<|im_end|>"])
    assert trained_text(hf, row) == ["</think>\n\nHello!<|im_end|>", "sum\n</think>\n\n4<|im_end|>"]
    assert Reference(hf).derive(MIXED).mask.tolist() == row["assistant_masks"]
    assert Reference(hf).derive(MIXED).unshown == []


def test_an_end_token_that_takes_blanks_of_the_next_message_is_turned_away(tiny_tokenizer_dir, tmp_path):
    taking = with_end(tiny_tokenizer_dir, tmp_path / "taking", rstrip=True)
    bare = "{% for m in messages %}{{ m.content }}<|im_end|>{% endfor %}"
    engine = engine_of(taking, tmp_path, bare)
    kept, away = examples(
        engine,
        record(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")),
        record(("user", "a"), ("assistant", "b"), ("user", " c"), ("assistant", "d")),
    )
    assert (kept["reason"], away["reason"]) == (None, "bound-inside-token")


def test_an_end_token_that_takes_the_blanks_before_it_is_never_split_off(tiny_tokenizer_dir, tmp_path):
    taking = with_end(tiny_tokenizer_dir, tmp_path / "taking", lstrip=True)
    engine = engine_of(taking, tmp_path, THINKS.replace("</think>\n\n", "").replace("<think>\n", "\n"))
    for row in examples(engine, record(("user", "a"), ("assistant", ""), ("user", "b"), ("assistant", "c"))):
        assert row["reason"] == "bound-inside-token"


def with_end(folder: Path, place: Path, **strips: bool) -> Path:
    """The tokenizer, its end token taking blanks beside it."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(place)
    record = json.loads((place / "tokenizer.json").read_text(encoding="utf-8"))
    for token in record["added_tokens"]:
        if token["content"] == "<|im_end|>":
            token.update(strips)
    (place / "tokenizer.json").write_text(json.dumps(record), encoding="utf-8")
    config = json.loads((place / "tokenizer_config.json").read_text(encoding="utf-8"))
    for token in config.get("added_tokens_decoder", {}).values():
        if token["content"] == "<|im_end|>":
            token.update(strips)
    (place / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return place


def test_the_table_proves_such_rows_and_names_the_difference(tiny_tokenizer_dir, tmp_path):
    engine_of(tiny_tokenizer_dir, tmp_path, THINKS)
    subject = load_subject(str(tmp_path / "model"), None, tmp_path)
    plain = prove(subject, PROBES[0])
    assert (plain.kind, plain.detail) == (PROVEN, "")
    assert plain.notes == ["an empty think block is trained on", "inference's prompt ends inside the token '\\n\\n'"]
    assert [turn.text for turn in plain.turns] == ["</think>\n\nIt reaches ninety metres.<|im_end|>"]
