"""`--turns`: whole conversations, last answers, and each answer behind just what inference would show before it."""

import json
import random
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpus import many_dialogues, record, table, write_jsonl
from transformers import AutoTokenizer

from dataprep.core.shards import all_packs
from dataprep.core.tokenizer import load_tokenizer
from dataprep.normalize.run import normalize_corpus
from dataprep.stages.tokenize import tokenize_chunk
from dataprep.tokenize.run import tokenize_corpus
from dataprep.tokenize.summary import tokenize_summary
from dataprep.tokenize.token_cache import TokenizeEngine
from dataprep.verify.cache import verify_cache
from dataprep.verify.reference import Reference
from schemas.example import EXAMPLE
from schemas.files import sha256_file
from schemas.manifest import PackOptions, TokenOptions, read_shards_manifest

OPTIONS = PackOptions(seq_len=256, overflow="split", val_fraction=0.0, seed=0)
EXACT, LAST = TokenOptions(turns="exact"), TokenOptions(turns="last")
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CALL = {"id": "c1", "name": "look", "arguments": '{"n": 1}'}
THOUGHT = record(
    ("user", "1+1?"),
    {"role": "assistant", "content": "2", "reasoning": "one and one"},
    ("user", "2+2?"),
    {"role": "assistant", "content": "4", "reasoning": "two and two"},
)
LOOKED_UP = record(
    ("user", "How many?"),
    {"role": "assistant", "tool_calls": [CALL], "reasoning": "look first"},
    {"role": "tool", "content": "3", "tool_call_id": "c1"},
    {"role": "assistant", "content": "Three.", "reasoning": "it says 3"},
    ("user", "Sure?"),
    ("assistant", "Yes."),
)
PLAIN = record(("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "2+2?"), ("assistant", "4"))


def with_template(folder: Path, place: Path, template: str) -> Path:
    """A copy of a tokenizer with another chat template."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = template
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def chatml_dir(tiny_tokenizer_dir, tmp_path_factory) -> Path:
    return with_template(tiny_tokenizer_dir, tmp_path_factory.mktemp("chatml"), CHATML)


def tokenized(bundle, options: TokenOptions, *records: dict) -> list[dict]:
    engine = TokenizeEngine.load(bundle, options)
    return tokenize_chunk(table(*records), engine.renderer, engine.encoder, engine.special, options).to_pylist()


def parts(row: dict) -> list[tuple[list[int], list[bool]]]:
    """Ids and mask of each example of a conversation."""
    bounds = np.cumsum([0, *row["example_lengths"]]).tolist()
    return [(row["input_ids"][a:b], row["assistant_masks"][a:b]) for a, b in pairwise(bounds)]


def said(hf, ids: list[int], mask: list[bool]) -> list[str]:
    """The decoded runs of targets."""
    edges = np.flatnonzero(np.diff(np.array([False, *mask, False]))).reshape(-1, 2)
    return [hf.decode(ids[a:b]) for a, b in edges.tolist()]


def test_reasoning_of_every_turn_is_trained_on_though_the_template_drops_it_from_earlier_turns(bundle, hf):
    [row] = tokenized(bundle, EXACT, THOUGHT)
    assert [said(hf, *part) for part in parts(row)] == [
        ["<think>\none and one\n</think>\n\n2<|im_end|>"],
        ["<think>\ntwo and two\n</think>\n\n4<|im_end|>"],
    ]
    assert hf.decode(parts(row)[1][0]).startswith(
        "<|im_start|>user\n1+1?<|im_end|>\n<|im_start|>assistant\n2<|im_end|>\n"
    )


def test_the_steps_of_a_tool_call_share_an_example_and_what_follows_gets_its_own(bundle, hf):
    [row] = tokenized(bundle, EXACT, LOOKED_UP)
    assert [said(hf, *part) for part in parts(row)] == [
        [
            "<think>\nlook first\n</think>\n\n<tool_call>\n"
            '{"name": "look", "arguments": {"n": 1}}\n</tool_call><|im_end|>',
            "<think>\nit says 3\n</think>\n\nThree.<|im_end|>",
        ],
        ["Yes.<|im_end|>"],
    ]
    assert (row["trained_turns"], row["differing_turns"]) == (3, [])


def test_whole_turns_that_differ_from_inference_are_counted_by_name(bundle):
    thought, looked_up, plain = tokenized(bundle, TokenOptions(), THOUGHT, LOOKED_UP, PLAIN)
    assert thought["differing_turns"] == [("reasoning-left-out", 1)]
    assert looked_up["differing_turns"] == [("reasoning-left-out", 2)]
    assert plain["differing_turns"] == [("enable_thinking=False", 1)]
    assert plain["prompts"] == [("enable_thinking=False", 1)]
    assert [row["remaining_turns"] for row in (thought, looked_up, plain)] == [0, 0, 0]


def test_the_estimated_tokens_of_exact_turns_are_near_the_real_ones(bundle):
    whole = tokenized(bundle, TokenOptions(), THOUGHT, LOOKED_UP, PLAIN)
    exact = tokenized(bundle, EXACT, THOUGHT, LOOKED_UP, PLAIN)
    for estimated, real in zip(whole, exact, strict=True):
        assert abs(estimated["exact_tokens"] / len(real["input_ids"]) - 1) < 0.1
        assert real["exact_tokens"] == len(real["input_ids"])


def test_only_the_last_turn_is_trained_on_with_turns_last(bundle, hf):
    for given, text in ((THOUGHT, "<think>\ntwo and two\n</think>\n\n4<|im_end|>"), (PLAIN, "4<|im_end|>")):
        [row] = tokenized(bundle, LAST, given)
        assert [said(hf, *part) for part in parts(row)] == [[text]]
        assert (row["trained_turns"], row["differing_turns"]) == (1, [])


def test_the_last_turn_to_train_on_may_be_an_earlier_one(bundle, hf):
    given = record(
        ("user", "a"), ("assistant", "b"), ("user", "c"), {"role": "assistant", "content": "d", "train": False}
    )
    [row] = tokenized(bundle, LAST, given)
    assert [said(hf, *part) for part in parts(row)] == [["b<|im_end|>"]]


def random_conversation(chance: random.Random) -> dict:
    """A conversation of one to five exchanges, with or without reasoning, tool calls and train flags."""
    turns: list = [("system", "Be kind.")] if chance.random() < 0.3 else []
    for number in range(chance.randint(1, 5)):
        turns.append(("user", f"question {number} 怎么睡？"))
        if chance.random() < 0.3:
            turns.append(
                {"role": "assistant", "tool_calls": [CALL]} | ({"reasoning": "r"} if chance.random() < 0.5 else {})
            )
            turns.append({"role": "tool", "content": f"found {number}", "tool_call_id": "c1"})
        answer = {"role": "assistant", "content": f"answer {number} 早睡。"}
        if chance.random() < 0.4:
            answer["reasoning"] = f"thought {number}"
        if chance.random() < 0.15:
            answer["train"] = False
        turns.append(answer)
    if chance.random() < 0.2:
        turns.append(("user", "thanks"))
    return record(*turns)


CONVERSATIONS = [random_conversation(random.Random(seed)) for seed in range(60)]


@pytest.mark.parametrize("name", ["qwen3.jinja", "qwen2_5.jinja", "deepseekv3.jinja", "llama3.jinja", "cohere2.jinja"])
def test_every_turn_is_trained_on_once_and_behind_the_prompt_of_inference(tiny_tokenizer_dir, tmp_path, name):
    template = (files("trl") / "chat_templates" / name).read_text(encoding="utf-8")
    folder = with_template(tiny_tokenizer_dir, tmp_path / "model", template)
    loaded, reference = load_tokenizer(str(folder), tmp_path), Reference(AutoTokenizer.from_pretrained(folder), EXACT)
    rows = tokenized(loaded, EXACT, *CONVERSATIONS)
    kept = [(row, given) for row, given in zip(rows, CONVERSATIONS, strict=True) if row["reason"] is None]
    for row, given in kept:
        wanted = [m for m in given["messages"] if m["role"] == "assistant" and m["train"] is not False]
        assert row["trained_turns"] == len(wanted)
        derived = reference.derive(given)
        assert derived.unshown == []
        assert (derived.ids.tolist(), derived.mask.tolist()) == (row["input_ids"], row["assistant_masks"])
        assert derived.lengths == row["example_lengths"]
    assert {row["reason"] for row in rows} <= {
        None,
        "no-targets",
        "template-refuses",
        "no-end-token",
        "message-dropped",
    }
    assert name != "qwen3.jinja" or len(kept) > 50


def test_under_a_template_that_writes_turns_alike_exact_and_whole_are_the_same(chatml_dir, tmp_path):
    loaded = load_tokenizer(str(chatml_dir), tmp_path)
    without_calls = [c for c in CONVERSATIONS if not any(m["tool_calls"] or m["reasoning"] for m in c["messages"])]
    assert len(without_calls) > 5
    assert tokenized(loaded, EXACT, *without_calls) == tokenized(loaded, TokenOptions(), *without_calls)


def test_reasoning_that_a_template_never_shows_is_named_under_exact_turns_too(chatml_dir, tmp_path):
    [row] = tokenized(load_tokenizer(str(chatml_dir), tmp_path), EXACT, THOUGHT)
    assert (row["differing_turns"], row["remaining_turns"]) == ([("reasoning-left-out", 2)], 2)


def test_a_prompt_that_opens_what_the_rendering_lacks_is_named(tiny_tokenizer_dir, tmp_path):
    template = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    loaded = load_tokenizer(str(with_template(tiny_tokenizer_dir, tmp_path / "model", template)), tmp_path)
    [row] = tokenized(loaded, EXACT, record(("user", "Hi"), ("assistant", "Hello!")))
    assert row["differing_turns"] == [("prompt-differs", 1)]


# The whole way


def cache_of(folder: Path, model: Path, options: TokenOptions, count: int = 60, packing: PackOptions = OPTIONS):
    cache = folder / "cache"
    if not cache.exists():
        normalize_corpus([str(write_jsonl(folder / "raw.jsonl", many_dialogues(count)))], cache, workers=1)
    return tokenize_corpus(cache, str(model), packing, 1, None, options)


def test_the_summary_tells_what_differs_and_what_exact_turns_cost(tmp_path, tiny_tokenizer_dir):
    whole, again = (cache_of(tmp_path, tiny_tokenizer_dir, TokenOptions()) for _ in range(2))
    lines = [" ".join(line.split()) for line in tokenize_summary(whole, 0.0).splitlines()]
    assert "turns 150 trained on, 60 of them just as inference shows them" in lines
    assert "enable_thinking=False 90 lack what inference puts before the answer with this argument" in lines
    [line] = [line for line in lines if line.startswith("--turns exact")]
    assert line.startswith("--turns exact: 0 turns differ, for about +")
    assert again.up_to_date
    assert again.manifest.ledger.turns == whole.manifest.ledger.turns
    exact = cache_of(tmp_path, tiny_tokenizer_dir, EXACT)
    assert "trained on, all just as inference shows them" in tokenize_summary(exact, 0.0)
    ratio = whole.manifest.ledger.turns.exact_tokens / exact.manifest.ledger.tokens.tokens
    assert abs(ratio - 1) < 0.05
    assert exact.manifest.ledger.tokens.targets == whole.manifest.ledger.tokens.targets


def test_each_example_of_a_conversation_is_packed_and_points_into_it(tmp_path, tiny_tokenizer_dir):
    built = cache_of(tmp_path, tiny_tokenizer_dir, EXACT, packing=replace(OPTIONS, seq_len=2048))
    places: dict[int, list[tuple[int, int]]] = {}
    for _, _, pack in all_packs(built.folder, built.manifest):
        for row, start, length in zip(
            pack.conversation_rows.tolist(), pack.conversation_starts.tolist(), pack.seq_lengths.tolist(), strict=True
        ):
            places.setdefault(row, []).append((start, start + length))
    assert sorted(places) == list(range(60))
    assert [len(places[row]) for row in range(8)] == [1, 2, 3, 4, 1, 2, 3, 4]
    for spans in places.values():
        ends = [0, *(stop for _, stop in sorted(spans))]
        assert [start for start, _ in sorted(spans)] == ends[:-1]
    assert verify_cache(tmp_path / "cache", None).problems == []


@pytest.mark.parametrize("overflow", ["cut", "drop", "split"])
def test_long_examples_are_fitted_one_by_one_and_the_ledger_closes(tmp_path, tiny_tokenizer_dir, overflow):
    built = cache_of(tmp_path, tiny_tokenizer_dir, EXACT, packing=replace(OPTIONS, seq_len=160, overflow=overflow))
    tokens = built.manifest.ledger.tokens
    assert tokens.cut
    assert tokens.tokens == tokens.targets + tokens.context + sum(tokens.cut.values())
    assert verify_cache(tmp_path / "cache", None).problems == []


def test_the_golden_columns_of_an_example_have_not_changed():
    golden = (Path(__file__).parent / "golden" / "example_schema.txt").read_text(encoding="utf-8").strip()
    assert EXAMPLE.to_string() == golden


# What verify catches, checksums aside


def forged(cache: Path, edit) -> None:
    """Write the first shard anew with `edit` done to its rows, and its checksum into the manifest."""
    folder = cache / "shards"
    manifest = json.loads((folder / "manifest.json").read_text())
    shard = manifest["splits"]["train"][0]
    path = folder / shard["file"]
    with pa.memory_map(str(path)) as source:
        held = pa.ipc.open_file(source).read_all()
    rows = held.to_pylist()
    edit(rows)
    with pa.OSFile(str(cache / "forged"), "wb") as sink, pa.ipc.new_file(sink, held.schema) as out:
        out.write_table(pa.Table.from_pylist(rows, schema=held.schema))
    (cache / "forged").replace(path)
    shard["sha256"] = sha256_file(path)
    del manifest["checksum"]
    (folder / "manifest.json").write_text(json.dumps(manifest))


def shift(rows: list[dict]) -> None:
    """Move a target from before the first run of targets' end to behind it: as many targets as before."""
    mask = rows[0]["assistant_masks"]
    first = mask.index(True)
    stop = first + mask[first:].index(False)
    mask[first], mask[stop] = False, True


def test_verify_catches_a_mask_that_is_shifted_by_one(tmp_path, tiny_tokenizer_dir):
    cache_of(tmp_path, tiny_tokenizer_dir, EXACT, packing=replace(OPTIONS, seq_len=2048))
    forged(tmp_path / "cache", shift)
    problems = verify_cache(tmp_path / "cache", None).problems
    assert len(problems) >= 1
    assert all(": its mask differs: token " in problem and " is no target there" in problem for problem in problems)


def forge_tokenizer(cache: Path, edit) -> None:
    """Change the tokenizer beside the shards, and its checksums in the manifest."""
    import hashlib

    manifest = read_shards_manifest(cache / "shards")
    folder = cache / "shards" / manifest.tokenizer.folder
    edit(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    sums = {
        "sha256": hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
        "template_sha256": hashlib.sha256(tokenizer.chat_template.encode()).hexdigest(),
    }
    path = cache / "shards" / "manifest.json"
    record = json.loads(path.read_text())
    record["tokenizer"] |= sums | {"files": {}}
    del record["checksum"]
    path.write_text(json.dumps(record))


def test_verify_catches_a_header_with_one_other_character(tmp_path, tiny_tokenizer_dir):
    cache_of(tmp_path, tiny_tokenizer_dir, EXACT, packing=replace(OPTIONS, seq_len=2048))

    def edit(folder: Path) -> None:
        path = folder / "chat_template.jinja"
        template = path.read_text(encoding="utf-8")
        assert "<|im_start|>assistant\\n" in template
        path.write_text(template.replace("<|im_start|>assistant\\n", "<|im_start|>assistent\\n"), encoding="utf-8")

    forge_tokenizer(tmp_path / "cache", edit)
    problem = verify_cache(tmp_path / "cache", None).problems[0]
    assert problem.endswith("turn-not-found: message 2: the rendering doesn't begin with its prompt")


def test_verify_catches_a_generation_prompt_with_one_other_character(tmp_path, tiny_tokenizer_dir):
    """The rendering is the same, only what inference would show differs."""
    cache_of(tmp_path, tiny_tokenizer_dir, EXACT, packing=replace(OPTIONS, seq_len=2048))

    def edit(folder: Path) -> None:
        path = folder / "chat_template.jinja"
        head, mark, tail = path.read_text(encoding="utf-8").rpartition("<|im_start|>assistant\\n")
        path.write_text(f"{head}<|im_start|>assistant {tail}", encoding="utf-8")
        assert mark

    forge_tokenizer(tmp_path / "cache", edit)
    problems = verify_cache(tmp_path / "cache", None).problems
    assert "turns are not those of the conversations" in problems[-1] or "differ" in problems[0]


def test_verify_catches_a_tokenizer_with_one_other_merge(tmp_path, tiny_tokenizer_dir):
    built = cache_of(tmp_path, tiny_tokenizer_dir, EXACT, packing=replace(OPTIONS, seq_len=2048))
    used = {token for _, _, pack in all_packs(built.folder, built.manifest) for token in pack.input_ids.tolist()}

    def edit(folder: Path) -> None:
        path = folder / "tokenizer.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        merges, vocabulary = record["model"]["merges"], record["model"]["vocab"]
        merges.remove(next(merge for merge in merges if vocabulary["".join(merge)] in used))
        path.write_text(json.dumps(record), encoding="utf-8")

    forge_tokenizer(tmp_path / "cache", edit)
    problems = verify_cache(tmp_path / "cache", None).problems
    assert any("its ids differ from apply_chat_template's: from token " in problem for problem in problems)
    assert any("by another tokenizer)" in problem for problem in problems)


def test_real_dialogues_are_all_trained_on_behind_the_prompt_of_inference(tmp_path, shared):
    names = ["smilechat/smilechat_200.jsonl", "openai/drone_training.jsonl", "llamafactory/v1_sft_demo.jsonl"]
    cache = tmp_path / "cache"
    normalize_corpus([str(shared / "data" / name) for name in names], cache, workers=1)
    options = replace(OPTIONS, seq_len=8192)
    built = tokenize_corpus(cache, str(shared / "tokenizers" / "qwen3"), options, 1, None, EXACT)
    assert built.manifest.ledger.turns.trained > 1_500
    assert built.manifest.ledger.turns.differing == {"prompt-differs": 1}  # an answer right after another answer
    report = verify_cache(cache, 300)
    assert report.problems == []
