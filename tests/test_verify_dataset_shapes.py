"""Other tools' masks under chat templates of many shapes: right ones pass, and each planted fault has its name."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer

from dataprep.cli import main
from dataprep.template.subject import made_tokenizer
from dataprep.verify.dataset import verify_dataset
from dataprep.verify.tokenised import read_tokenised
from schemas.errors import InputError

CHATS = [
    [("user", "How do I cook rice?"), ("assistant", "Rinse it, add water."), ("user", "ok"), ("assistant", "Enjoy!")],
    [("user", "What is the capital of France?"), ("assistant", "Paris.")],
]
PHI4 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}<|im_sep|>{{ m.content }}<|im_end|>{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant<|im_sep|>{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST]{{ m.content }}[/INST]"
    "{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
CHATGLM = (
    "[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}<|user|>"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
SHAPES = {  # a template, or the name of one of trl's; and what ends its answers
    "llama3": ("llama3.jinja", "<|eot_id|>"),
    "gemma3": ("gemma3.jinja", "<end_of_turn>"),
    "deepseekv3": ("deepseekv3.jinja", "<｜end▁of▁sentence｜>"),
    "cohere2": ("cohere2.jinja", "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>"),
    "phi4": (PHI4, "<|im_end|>"),
    "mistral": (MISTRAL, "<|ending|>"),
    "chatglm": (CHATGLM, "<|user|>"),
}


def right(tokenizer, chat: list[tuple[str, str]], end: str) -> dict[str, np.ndarray]:
    """Ids, and as targets the answers with what ends them, found by hand."""
    text = tokenizer.apply_chat_template([dict(role=r, content=c) for r, c in chat], tokenize=False)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    spans = [(text.index(c), text.index(c) + len(c) + len(end)) for r, c in chat if r == "assistant"]
    inside = [any(low <= a and b <= high for low, high in spans) for a, b in encoded["offset_mapping"]]
    return {"input_ids": np.array(encoded["input_ids"]), "targets": np.array(inside)}


def planted(tokenizer, chats: list[dict[str, np.ndarray]]) -> dict[str, dict[str, list[int]]]:
    """A row for each fault, by the name that it should be given; and right ones."""
    long, short = chats
    ids, targets = short["input_ids"], short["targets"]
    first, last = np.flatnonzero(targets)[[0, -1]].tolist()
    rows = {"right": (long["input_ids"], long["targets"]), "right, too": (ids, targets)}
    for name, places, value in (
        ("targets on headers", [first - 1], True),
        ("the end isn't a target", [last], False),
        ("targets on other text", range(2, 5), True),
        ("no targets", range(len(ids)), False),
    ):
        changed = targets.copy()
        changed[list(places)] = value
        rows[name] = (ids, changed)
    rows["cut off"] = (ids[:last], targets[:last])
    rows["ids outside of the vocabulary"] = (np.where(np.arange(len(ids)) == first + 1, 10**6, ids), targets)
    labelled = {name: _labelled(ids, np.where(targets, ids, -100)) for name, (ids, targets) in rows.items()}
    shifted = np.where(targets, ids, -100)[1:]
    labelled["labels are shifted"] = _labelled(ids, np.append(shifted, -100))
    pad = np.full(3, tokenizer.pad_token_id)
    labelled["padding trained"] = _labelled(np.append(ids, pad), np.append(np.where(targets, ids, -100), pad))
    return labelled


def _labelled(ids: np.ndarray, labels: np.ndarray) -> dict[str, list[int]]:
    return {"input_ids": ids.tolist(), "labels": labels.tolist()}


def write(path: Path, *rows: object) -> Path:
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_right_masks_pass_and_each_fault_is_named_with_its_row(tmp_path, shape):
    template, end = SHAPES[shape]
    if template.endswith(".jinja"):
        template = (files("trl") / "chat_templates" / template).read_text(encoding="utf-8")
    model = made_tokenizer(template, None, {}, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = planted(tokenizer, [right(tokenizer, chat, end) for chat in CHATS])
    findings = verify_dataset(write(tmp_path / "rows.jsonl", *rows.values()), str(model))
    own = {name: shown.place for name, shown in findings.examples.items() if name in findings.counts}
    expected = {name: f"rows.jsonl:{number}" for number, name in enumerate(rows) if not name.startswith("right")}
    assert own == expected | {"answers without targets": expected["no targets"]}
    assert set(findings.counts.values()) == {1}


def test_the_command_shows_the_place_with_its_targets(tmp_path, capsys):
    model = made_tokenizer(PHI4, None, {}, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(model)
    rows = planted(tokenizer, [right(tokenizer, chat, "<|im_end|>") for chat in CHATS])
    path = write(tmp_path / "rows.jsonl", rows["right, too"], rows["targets on headers"])
    assert main(["verify", "--dataset", str(path), "--tokenizer", str(model)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "rows count from 0; in the first row of each, targets stand in ⟦ ⟧:"
    assert lines[2].startswith("LOOK OUT targets on headers: 1 of 2 rows: the model learns to write the role header")
    assert lines[3].startswith("    rows.jsonl:1: …")
    assert lines[3].endswith("<|im_end|><|im_start|>assistant⟦<|im_sep|>Paris.<|im_end|>⟧")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"[1, 2]", "rows.jsonl:0: not an object with input_ids and labels (or assistant_masks)"),
        (b'{"text": "Hi"}', "rows.jsonl: needs columns input_ids and labels (or assistant_masks); it has text"),
        (b'{"input_ids": null, "labels": [1]}', "rows.jsonl: needs columns input_ids and labels (or assistant_masks)"),
        (b'{"input_ids": ["a"], "labels": [1]}', "rows.jsonl:0: input_ids is no flat list of whole numbers"),
        (b'{"input_ids": [[1, 2]], "labels": [1]}', "rows.jsonl:0: input_ids is no flat list of whole numbers"),
        (b'{"input_ids": [[1], [1, 2]], "labels": [1]}', "rows.jsonl:0: input_ids is no flat list of whole numbers"),
        (b'{"input_ids": [1], "labels": [0.5]}', "rows.jsonl:0: labels is no flat list of whole numbers"),
        (b'{"input_ids": [1], "labels": [1], "attention_mask": [1, 1]}', "rows.jsonl:0: 1 input_ids but 2 attention"),
        (b'{"input_ids": [1', "can't be read: "),
    ],
)
def test_rows_that_are_no_tokenised_rows_are_one_clear_line(tmp_path, line, message):
    (tmp_path / "rows.jsonl").write_bytes(line)
    with pytest.raises(InputError) as caught:
        list(read_tokenised(tmp_path / "rows.jsonl"))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_what_their_names_say_are_one_clear_line(tmp_path):
    for name in ("rows.parquet", "rows.arrow"):
        for content in (b"", b"not it"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(InputError, match=f"{name}: can't be read: .*; tokenise it anew"):
                list(read_tokenised(tmp_path / name))
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="it has none of these"):
        list(read_tokenised(tmp_path / "rows.parquet"))
