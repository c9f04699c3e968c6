"""Dialogues of hundreds of turns take no longer a turn than short ones, and come out as if each turn had been found."""

from importlib.resources import files
from pathlib import Path

import pyarrow as pa
import pytest
from corpus import record, table
from test_turns_exact import CALL, with_template

from dataprep.core.tokenizer import load_tokenizer
from dataprep.stages import repeats, tracing
from dataprep.tokenize.token_cache import TokenizeEngine
from schemas.manifest import TokenOptions

WHOLE = TokenOptions()
PLAIN = [("user", "Hi"), ("assistant", "Hello!")]
THOUGHT = [("user", "1+1?"), {"role": "assistant", "content": "2", "reasoning": "one and one"}]
CALLED = [
    {"role": "assistant", "tool_calls": [CALL], "reasoning": "look first"},
    {"role": "tool", "content": "3", "tool_call_id": "c1"},
]
MIXED = [("user", "How many?"), *CALLED, ("assistant", "Three."), *THOUGHT, *PLAIN]


def examples(model: Path, dialogue: list[object], options: TokenOptions = WHOLE) -> pa.RecordBatch:
    engine = TokenizeEngine.load(load_tokenizer(str(model), model.parent / "cache"), options)
    return engine.tokenize(table(record(*dialogue)))


@pytest.mark.parametrize("template", ["qwen3", "llama3", "deepseekv3", "gptoss"])
@pytest.mark.parametrize("dialogue", [PLAIN * 40, THOUGHT * 40, [("user", "Go"), *CALLED * 40], MIXED * 20])
def test_turns_that_read_alike_are_found_as_one_by_one(
    template: str,
    dialogue: list[object],
    tiny_tokenizer_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    text = (files("trl") / "chat_templates" / f"{template}.jinja").read_text(encoding="utf-8")
    model = with_template(tiny_tokenizer_dir, tmp_path / "model", text)
    found = examples(model, dialogue)
    monkeypatch.setattr(repeats, "_ENOUGH", 1_000_000)
    assert found.equals(examples(model, dialogue))


def test_what_exact_examples_hold_is_reckoned_as_it_is_counted(
    tiny_tokenizer_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (files("trl") / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
    model = with_template(tiny_tokenizer_dir, tmp_path / "model", text)
    reckoned = examples(model, PLAIN * 80).column("exact_tokens").to_pylist()
    monkeypatch.setattr(tracing, "_MANY_TURNS", 1_000)
    counted = examples(model, PLAIN * 80).column("exact_tokens").to_pylist()
    assert reckoned[0] == pytest.approx(counted[0], rel=0.05)


def test_a_conversation_of_too_many_answers_is_turned_away_from_exact(tiny_tokenizer_dir: Path) -> None:
    row = examples(tiny_tokenizer_dir, PLAIN * 1_001, TokenOptions(turns="exact")).to_pylist()[0]
    assert row["reason"] == "too-many-turns"
