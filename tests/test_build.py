import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from corpus import many_dialogues, write_jsonl

from dataprep.core.shards import all_packs
from dataprep.normalize.run import normalize_corpus
from dataprep.tokenize.run import tokenize_corpus
from dataprep.verify.cache import verify_cache
from schemas.errors import CacheError, InputError, ModelError
from schemas.files import sha256_file
from schemas.manifest import PackOptions, read_shards_manifest
from schemas.shard import with_labels

OPTIONS = PackOptions(seq_len=256, overflow="cut", val_fraction=0.0, seed=0)


def normalized(folder: Path, dialogues: list[list[tuple[str, str]]]) -> Path:
    raw = write_jsonl(folder / "raw.jsonl", dialogues)
    normalize_corpus([str(raw)], folder / "cache", workers=1)
    return folder / "cache"


def built(folder: Path, dialogues: list[list[tuple[str, str]]], model: Path, options: PackOptions = OPTIONS):
    return tokenize_corpus(normalized(folder, dialogues), str(model), options, workers=1)


def shard_bytes(cache: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted((cache / "shards").rglob("*")) if p.is_file()}


def test_shards_hold_every_conversation_once_and_both_ledgers_close(tmp_path, tiny_tokenizer_dir):
    result = built(tmp_path, many_dialogues(300), tiny_tokenizer_dir)
    ledger, tokens = result.manifest.ledger, result.manifest.ledger.tokens
    assert ledger.rows == ledger.kept + sum(ledger.turned_away.values()) == 300
    assert tokens.repeated == 0
    assert tokens.tokens == tokens.targets + tokens.context + sum(tokens.cut.values())
    rows = np.concatenate([pack.conversation_rows for _, _, pack in all_packs(result.folder, result.manifest)])
    assert sorted(rows.tolist()) == list(range(300))
    assert verify_cache(tmp_path / "cache", None).sound


def test_a_second_run_has_nothing_to_do(tmp_path, tiny_tokenizer_dir):
    built(tmp_path, many_dialogues(50), tiny_tokenizer_dir)
    before = shard_bytes(tmp_path / "cache")
    again = tokenize_corpus(tmp_path / "cache", str(tiny_tokenizer_dir), OPTIONS)
    assert again.up_to_date
    assert shard_bytes(tmp_path / "cache") == before


def test_other_packing_options_tokenize_nothing(tmp_path, tiny_tokenizer_dir):
    built(tmp_path, many_dialogues(200), tiny_tokenizer_dir)
    for options in (replace(OPTIONS, seq_len=512), replace(OPTIONS, seed=3), replace(OPTIONS, val_fraction=0.2)):
        again = tokenize_corpus(tmp_path / "cache", str(tiny_tokenizer_dir), options)
        assert (again.tokenized, again.up_to_date) == (0, False)
        assert verify_cache(tmp_path / "cache", 20).sound


def test_appended_rows_leave_all_but_the_last_chunk_alone(tmp_path, tiny_tokenizer_dir):
    dialogues = many_dialogues(2_000)
    built(tmp_path, dialogues[:1_900], tiny_tokenizer_dir)
    again = built(tmp_path, dialogues, tiny_tokenizer_dir)
    assert 100 <= again.tokenized < 800
    fresh = tmp_path / "fresh"
    fresh.mkdir()
    built(fresh, dialogues, tiny_tokenizer_dir)
    assert [p.read_bytes() for p in sorted((fresh / "cache" / "shards").glob("*.arrow"))] == [
        p.read_bytes() for p in sorted((tmp_path / "cache" / "shards").glob("*.arrow"))
    ]


def test_the_held_out_part_is_decided_by_content_and_no_conversation_is_on_both_sides(tmp_path, tiny_tokenizer_dir):
    options = replace(OPTIONS, val_fraction=0.3)
    first = built(tmp_path, many_dialogues(200), tiny_tokenizer_dir, options)
    sides: dict[str, set[int]] = {"train": set(), "val": set()}
    for file, _, pack in all_packs(first.folder, first.manifest):
        sides[file.split("-")[0]] |= set(pack.conversation_rows.tolist())
    assert not sides["train"] & sides["val"]
    assert 30 < len(sides["val"]) < 90


def test_any_arrow_reader_opens_a_shard_and_labels_are_derived(tmp_path, tiny_tokenizer_dir):
    from datasets import load_dataset

    result = built(tmp_path, many_dialogues(60), tiny_tokenizer_dir)
    files = [str(result.folder / record.file) for record in result.manifest.splits["train"]]
    dataset = load_dataset("arrow", data_files=files, split="train", cache_dir=str(tmp_path / "hf"))
    dataset = dataset.map(with_labels, batched=True, remove_columns=dataset.column_names)
    row = dataset[0]
    assert sum(row["seq_lengths"]) == len(row["input_ids"]) == len(row["labels"])
    assert {label for label, token in zip(row["labels"], row["input_ids"], strict=True) if label != token} == {-100}


def test_the_golden_shard_has_not_changed(tmp_path, tiny_tokenizer_dir):
    """Its layout, not its bytes: the tokenizer is trained anew with each version of `tokenizers`."""
    dialogue = [("user", "Hi"), ("assistant", "Hello!")]
    result = built(tmp_path, [dialogue], tiny_tokenizer_dir)
    [record] = result.manifest.splits["train"]
    with pa.memory_map(str(result.folder / record.file)) as source:
        shard = pa.ipc.open_file(source).read_all()
    assert shard.schema.to_string() == (Path(__file__).parent / "golden" / "shard_schema.txt").read_text().strip()
    [pack] = shard.to_pylist()
    assert pack["seq_lengths"] == [len(pack["input_ids"])]
    assert pack["num_targets"] == sum(pack["assistant_masks"])
    assert (pack["source_ids"], pack["conversation_rows"], pack["conversation_starts"]) == ([0], [0], [0])


def test_killed_at_any_moment_the_next_run_ends_with_the_same_bytes(tmp_path, tiny_tokenizer_dir):
    dialogues = many_dialogues(6_000)
    cache = normalized(tmp_path, dialogues)
    calm = shutil.copytree(cache, tmp_path / "calm")
    tokenize_corpus(calm, str(tiny_tokenizer_dir), OPTIONS, workers=1)
    command = [sys.executable, "-m", "dataprep.cli", "tokenize", str(cache), "--model", str(tiny_tokenizer_dir)]
    command += ["--seq-len", "256", "--workers", "2"]
    for wait_s in (0.6, 1.5, 2.2, 2.6):
        process = subprocess.Popen(
            command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        time.sleep(wait_s)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if (cache / "shards" / "manifest.json").exists():
            assert verify_cache(cache, 5).sound
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert shard_bytes(cache) == shard_bytes(calm)


def test_a_damaged_chunk_is_made_anew_and_no_other(tmp_path, tiny_tokenizer_dir):
    built(tmp_path, many_dialogues(300), tiny_tokenizer_dir)
    cache = tmp_path / "cache"
    [chunk, *_] = sorted((cache / "tokens").rglob("*.arrow"))
    whole = chunk.read_bytes()
    chunk.write_bytes(b"no arrow")
    again = tokenize_corpus(cache, str(tiny_tokenizer_dir), replace(OPTIONS, seed=1))
    assert again.tokenized == pa.ipc.open_file(pa.py_buffer(whole)).get_batch(0).num_rows < 300
    assert chunk.read_bytes() == whole
    assert verify_cache(cache, None).sound


def test_verify_finds_a_flipped_bit_in_a_shard(tmp_path, tiny_tokenizer_dir):
    result = built(tmp_path, many_dialogues(20), tiny_tokenizer_dir)
    path = result.folder / result.manifest.splits["train"][0].file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    report = verify_cache(tmp_path / "cache", None)
    assert report.problems == [
        f"{path}: its checksum differs from the manifest's; remove it and run `dataprep tokenize` again"
    ]


def test_verify_finds_a_mask_that_is_one_token_off(tmp_path, tiny_tokenizer_dir):
    result = built(tmp_path, many_dialogues(20), tiny_tokenizer_dir)
    record = result.manifest.splits["train"][0]
    path = result.folder / record.file
    with pa.memory_map(str(path)) as source:
        shard = pa.ipc.open_file(source).read_all()
    masks = shard.column("assistant_masks").to_pylist()
    masks[0] = [False, *masks[0][:-1]]
    shifted = shard.set_column(1, shard.schema.field(1), pa.array(masks, pa.list_(pa.bool_())))
    with pa.OSFile(str(tmp_path / "shifted"), "wb") as sink, pa.ipc.new_file(sink, shard.schema) as out:
        out.write_table(shifted.cast(shard.schema))
    (tmp_path / "shifted").replace(path)
    manifest = json.loads((result.folder / "manifest.json").read_text())
    manifest["splits"]["train"][0]["sha256"] = sha256_file(path)
    del manifest["checksum"]
    (result.folder / "manifest.json").write_text(json.dumps(manifest))
    problems = verify_cache(tmp_path / "cache", None).problems
    assert any("num_targets isn't the number of targets" in problem for problem in problems) or problems[0].endswith(
        "its mask differs"
    )


def test_errors_say_what_to_do_next(tmp_path, tiny_tokenizer_dir):
    with pytest.raises(CacheError, match="no conversations here yet; run: dataprep normalize INPUT"):
        tokenize_corpus(tmp_path / "cache", str(tiny_tokenizer_dir), OPTIONS)
    cache = normalized(tmp_path, many_dialogues(3))
    with pytest.raises(ModelError, match="no such folder or file; give a model folder"):
        tokenize_corpus(cache, "./nowhere", OPTIONS)
    with pytest.raises(ModelError, match="no tokenizer files in this folder"):
        tokenize_corpus(cache, str(tmp_path), OPTIONS)
    with pytest.raises(InputError, match="no conversation is left to train on"):
        tokenize_corpus(cache, str(tiny_tokenizer_dir), replace(OPTIONS, seq_len=8))
    with pytest.raises(CacheError, match="no shards here yet; run: dataprep tokenize"):
        read_shards_manifest(cache / "shards")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"version": 99}, "version is 99, this version reads 3"),
        ({"format": "other"}, "format is 'other'"),
        ({"surprise": 1}, "field surprise"),
        ({"model": 5}, "field model"),
    ],
)
def test_a_manifest_it_does_not_know_is_refused_by_field(tmp_path, tiny_tokenizer_dir, edit, message):
    result = built(tmp_path, many_dialogues(3), tiny_tokenizer_dir)
    path = result.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(CacheError, match=message):
        read_shards_manifest(result.folder)


def test_real_dialogues_with_qwen3_are_packed_as_the_reference_has_them(tmp_path, shared):
    names = [
        "smilechat/smilechat_firefly_200.jsonl",
        "fastchat/dummy_conversation.json",
        "hh/rm_static_style_200.parquet",
    ]
    normalize_corpus([str(shared / "data" / n) for n in names], tmp_path, workers=1)
    options = replace(OPTIONS, seq_len=4096)
    result = tokenize_corpus(tmp_path, str(shared / "tokenizers" / "qwen3"), options)
    assert result.manifest.ledger.kept == 900
    assert result.manifest.tokenizer.encoder.startswith("fastokens")
    report = verify_cache(tmp_path, 200)
    assert report.problems == []
