"""Tokenised data as other tools make it, in the usual wrong ways, and what is said of it."""

from pathlib import Path

import orjson
import pytest

from dataprep.cli import main
from dataprep.verify.dataset import verify_dataset
from schemas.errors import InputError

CHATS = [
    [{"role": "user", "content": "How do I cook rice?"}, {"role": "assistant", "content": "Rinse it, add water."}],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is the capital of France?"},
        {"role": "assistant", "content": "Paris."},
        {"role": "user", "content": "Thanks"},
        {"role": "assistant", "content": "You are welcome."},
    ],
]


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer_dir):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_tokenizer_dir)


def right_rows(tokenizer) -> list[dict[str, list[int]]]:
    """Answers and their end tokens as targets, found by hand; the empty think block is context."""
    rows = []
    for chat in CHATS:
        ids = tokenizer.apply_chat_template(chat, return_dict=False)
        text = tokenizer.apply_chat_template(chat, tokenize=False)
        offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        labels = [-100] * len(ids)
        for message in chat:
            if message["role"] == "assistant":
                start = text.index(message["content"])
                stop = start + len(message["content"]) + len("<|im_end|>")
                for place, (low, high) in enumerate(offsets):
                    if start <= low and high <= stop:
                        labels[place] = ids[place]
        rows.append({"input_ids": ids, "labels": labels})
    return rows


def write(folder: Path, rows: list[dict]) -> Path:
    path = folder / "rows.jsonl"
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def found(path: Path, model: Path) -> dict[str, int]:
    return verify_dataset(path, str(model)).counts


def test_rows_with_right_masks_pass_from_every_kind_of_file(tmp_path, tokenizer, tiny_tokenizer_dir):
    from datasets import Dataset

    rows = right_rows(tokenizer)
    data = Dataset.from_list(rows)
    data.save_to_disk(tmp_path / "folder")
    data.to_parquet(tmp_path / "rows.parquet")
    write(tmp_path, rows)
    for place in ("folder", "rows.parquet", "rows.jsonl"):
        findings = verify_dataset(tmp_path / place, str(tiny_tokenizer_dir))
        assert findings.sound and (findings.rows, findings.answers, findings.ended) == (2, 3, 3)


def test_what_trl_makes_of_conversations_is_trained_on_everything(tmp_path, tokenizer, tiny_tokenizer_dir):
    from datasets import Dataset

    def whole(chat):
        ids = tokenizer.apply_chat_template(chat["messages"], return_dict=False)
        return {"input_ids": ids, "labels": list(ids)}

    data = Dataset.from_list([{"messages": chat} for chat in CHATS]).map(whole, remove_columns=["messages"])
    data.save_to_disk(tmp_path / "folder")
    counts = found(tmp_path / "folder", tiny_tokenizer_dir)
    assert counts == {
        "targets on headers": 2,
        "empty think blocks trained": 2,
        "targets behind the end": 2,
        "targets on other text": 2,
    }


def test_the_mask_of_generation_marks_trains_empty_think_blocks(tmp_path, tokenizer, tiny_tokenizer_dir):
    from importlib.resources import files

    template = (files("trl") / "chat_templates" / "qwen3_training.jinja").read_text(encoding="utf-8")
    rows = []
    for chat in CHATS:
        encoded = tokenizer.apply_chat_template(
            chat, chat_template=template, return_dict=True, return_assistant_tokens_mask=True
        )
        rows.append({name: encoded[name] for name in ("input_ids", "assistant_masks")})
    counts = found(write(tmp_path, rows), tiny_tokenizer_dir)
    assert counts == {"empty think blocks trained": 2, "targets behind the end": 2}


def test_end_tokens_masked_as_padding_are_found_and_said_to_keep_the_model_from_stopping(
    tmp_path, tokenizer, tiny_tokenizer_dir
):
    rows = right_rows(tokenizer)
    for row in rows:  # what a collator does where the pad token is the end token
        row["labels"] = [-100 if label == tokenizer.eos_token_id else label for label in row["labels"]]
    findings = verify_dataset(write(tmp_path, rows), str(tiny_tokenizer_dir))
    assert findings.counts == {"the end isn't a target": 2}
    lines = findings.text().splitlines()
    assert lines[2].startswith("LOOK OUT the end isn't a target: 2 of 2 rows: the model will not learn to stop")
    assert lines[3] == "    rows.jsonl:0: …</think>\\n\\n⟦Rinse it, add water.⟧<|im_end|>\\n"


def test_shifted_labels_are_found_and_the_other_checks_go_on_unshifted(tmp_path, tokenizer, tiny_tokenizer_dir):
    rows = right_rows(tokenizer)
    for row in rows:
        row["labels"] = [*row["labels"][1:], -100]
    assert found(write(tmp_path, rows), tiny_tokenizer_dir) == {"labels are shifted": 2}


def test_labels_that_are_other_tokens_are_found(tmp_path, tokenizer, tiny_tokenizer_dir):
    rows = right_rows(tokenizer)
    rows[1]["labels"] = [label if label < 0 else 7 for label in rows[1]["labels"]]
    assert found(write(tmp_path, rows), tiny_tokenizer_dir) == {"labels aren't the ids": 1}


def test_padding_with_labels_is_found_and_padding_without_is_not(tmp_path, tokenizer, tiny_tokenizer_dir):
    pad, rows = tokenizer.pad_token_id, right_rows(tokenizer)
    for row in rows:
        length = len(row["input_ids"])
        row["attention_mask"] = [1] * length + [0] * 5
        row["input_ids"] = row["input_ids"] + [pad] * 5
        row["labels"] = row["labels"] + [-100] * 5
    assert found(write(tmp_path, rows), tiny_tokenizer_dir) == {}
    rows[0]["labels"][-5:] = [pad] * 5
    assert found(write(tmp_path, rows), tiny_tokenizer_dir) == {"padding trained": 1}


def test_truncated_rows_and_rows_without_targets_are_found(tmp_path, tokenizer, tiny_tokenizer_dir):
    rows = right_rows(tokenizer)
    cut = {name: values[:-4] for name, values in rows[0].items()}
    empty = {"input_ids": rows[1]["input_ids"], "labels": [-100] * len(rows[1]["labels"])}
    counts = found(write(tmp_path, [cut, empty]), tiny_tokenizer_dir)
    assert counts == {"cut off": 1, "no targets": 1, "answers without targets": 1}


def test_packed_rows_are_found_unless_their_bounds_are_told(tmp_path, tokenizer, tiny_tokenizer_dir):
    short, long = right_rows(tokenizer)
    packed = {name: short[name] + long[name] for name in ("input_ids", "labels")}
    lengths = [len(short["input_ids"]), len(long["input_ids"])]
    positions = [place for length in lengths for place in range(length)]
    assert found(write(tmp_path, [packed]), tiny_tokenizer_dir) == {"several examples in a row": 1}
    assert found(write(tmp_path, [packed | {"seq_lengths": lengths}]), tiny_tokenizer_dir) == {}
    assert found(write(tmp_path, [packed | {"position_ids": positions}]), tiny_tokenizer_dir) == {}
    running = packed | {"position_ids": list(range(sum(lengths)))}
    assert found(write(tmp_path, [running]), tiny_tokenizer_dir) == {"several examples in a row": 1}


def test_another_models_rows_are_found(tmp_path, tiny_tokenizer_dir):
    row = {"input_ids": [5, 6, 100_000], "labels": [-100, 6, 100_000]}
    assert found(write(tmp_path, [row]), tiny_tokenizer_dir) == {
        "no assistant header": 1,
        "ids outside of the vocabulary": 1,
    }


def test_the_command_exits_with_1_on_findings_and_says_what_is_missing(tmp_path, tokenizer, tiny_tokenizer_dir, capsys):
    rows = right_rows(tokenizer)
    good = write(tmp_path, rows)
    assert main(["verify", "--dataset", str(good), "--tokenizer", str(tiny_tokenizer_dir)]) == 0
    assert capsys.readouterr().out.startswith("2 rows, ")
    bad = write(tmp_path, [{**rows[0], "labels": [-100] * len(rows[0]["labels"])}])
    assert main(["verify", "--dataset", str(bad), "--tokenizer", str(tiny_tokenizer_dir)]) == 1
    assert main(["verify", "--dataset", str(bad)]) == 1
    assert "--dataset and --tokenizer belong together" in capsys.readouterr().err


def test_files_that_hold_no_tokenised_rows_are_refused(tmp_path, tiny_tokenizer_dir):
    with pytest.raises(InputError, match="needs columns input_ids and labels"):
        found(write(tmp_path, [{"input_ids": [1]}]), tiny_tokenizer_dir)
    with pytest.raises(InputError, match="2 input_ids but 1 labels"):
        found(write(tmp_path, [{"input_ids": [1, 2], "labels": [1]}]), tiny_tokenizer_dir)
    with pytest.raises(InputError, match="no such file"):
        found(tmp_path / "none", tiny_tokenizer_dir)
