"""A tiny Qwen3 and shards written by hand, for the tests of train/."""

import hashlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from schemas.files import sha256_file
from schemas.manifest import (
    SHARDS_FORMAT,
    SHARDS_VERSION,
    Artefact,
    Ledger,
    PackOptions,
    ShardRecord,
    ShardsManifest,
    TokenizerRecord,
    TokenLedger,
    TokenOptions,
    TurnLedger,
    write_manifest,
)
from schemas.shard import SHARD

PROMPTS = [
    ("How do I cook rice?", "Rinse it, add water, and simmer for twelve minutes."),
    ("请问怎样才能睡得更好？", "晚上少看手机，房间保持安静。"),
    ("What is the capital of France?", "Paris."),
    ("Hello", "What else would you like to know about it? The lid on, add water, simmer."),
    ("法国的首都是哪里？", "巴黎"),
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """One example of a pack."""

    ids: list[int]
    targets: list[bool]


def tiny_model_dir(folder: Path, tokenizer_dir: Path, *, tied: bool = False, layers: int = 2) -> Path:
    """A random Qwen3 of 2 layers in float32, with the tokenizer beside it."""
    import torch
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    torch.manual_seed(7)
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=512,
        tie_word_embeddings=tied,
        initializer_range=0.2,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|endoftext|>"),
        pad_token_id=None,
        bos_token_id=None,
    )
    model = Qwen3ForCausalLM(config)
    model.save_pretrained(folder)
    shutil.copytree(tokenizer_dir, folder, dirs_exist_ok=True)
    return folder


def chat_examples(tokenizer_dir: Path, count: int) -> list[Example]:
    """Short dialogues of unequal length; what the assistant says, and its turn's end, are targets."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    examples = []
    for index in range(count):
        question, answer = PROMPTS[index % len(PROMPTS)]
        start = tokenizer(f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n").input_ids
        end = tokenizer(" ".join([answer] * (1 + index % 3)) + "<|im_end|>").input_ids
        examples.append(Example(ids=start + end, targets=[False] * len(start) + [True] * len(end)))
    return examples


def packed(examples: Sequence[Example], seq_len: int) -> list[list[Example]]:
    """Examples in order, a new pack where the next does not fit."""
    packs: list[list[Example]] = [[]]
    for example in examples:
        if sum(len(each.ids) for each in packs[-1]) + len(example.ids) > seq_len:
            packs.append([])
        packs[-1].append(example)
    return packs


def write_shards(
    cache: Path,
    tokenizer_dir: Path,
    model: str,
    train: Sequence[Sequence[Example]],
    val: Sequence[Sequence[Example]] = (),
    *,
    seq_len: int = 128,
    shard_packs: int = 4,
) -> Path:
    """Write a cache's shards/ by hand, as schemas/shard.md says; gives the cache."""
    from transformers import AutoTokenizer

    folder = cache / "shards"
    folder.mkdir(parents=True)
    shutil.copytree(tokenizer_dir, folder / "tokenizer")
    (folder / "quarantine.jsonl").write_text("", encoding="utf-8")
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    splits = {
        name: [
            _write_shard(folder / f"{name}-{index:05d}-00000000.arrow", packs[start : start + shard_packs])
            for index, start in enumerate(range(0, len(packs), shard_packs))
        ]
        for name, packs in (("train", train), ("val", val))
        if packs
    }
    records = [record for split in splits.values() for record in split]
    tokens, targets = sum(record.tokens for record in records), sum(record.targets for record in records)
    rows = sum(record.examples for record in records)
    ledger = TokenLedger(tokens=tokens, repeated=0, targets=targets, context=tokens - targets, cut={})
    turns = TurnLedger(trained=rows, differing={}, left_out={}, prompts={}, exact_differing=0, exact_tokens=tokens)
    manifest = ShardsManifest(
        format=SHARDS_FORMAT,
        version=SHARDS_VERSION,
        model=model,
        tokenizer=TokenizerRecord(
            folder="tokenizer",
            sha256=hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest(),
            template_sha256=hashlib.sha256(tokenizer.chat_template.encode()).hexdigest(),
            vocab_size=len(tokenizer),
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            encoder="by hand",
        ),
        token_options=TokenOptions(),
        options=PackOptions(seq_len=seq_len, overflow="cut", val_fraction=0.1, seed=0),
        mixture={},
        conversations_sha256="0" * 64,
        fingerprint="0" * 64,
        tokens_fingerprint="0" * 64,
        sources=["tiny"],
        ledger=Ledger(rows=rows, branched=0, joined=0, kept=rows, turned_away={}, tokens=ledger, turns=turns),
        splits=splits,
        by_source={},
        quarantine=Artefact(file="quarantine.jsonl", rows=0, bytes=0, sha256=sha256_file(folder / "quarantine.jsonl")),
    )
    write_manifest(folder / "manifest.json", manifest)
    return cache


def _write_shard(path: Path, packs: Sequence[Sequence[Example]]) -> ShardRecord:
    rows = []
    for pack in packs:
        targets = [target for example in pack for target in example.targets]
        rows.append(
            {
                "input_ids": [token for example in pack for token in example.ids],
                "assistant_masks": targets,
                "seq_lengths": [len(example.ids) for example in pack],
                "num_targets": sum(targets),
                "source_ids": [0] * len(pack),
                "conversation_rows": [0] * len(pack),
                "conversation_starts": [0] * len(pack),
            }
        )
    with pa.ipc.new_file(path, SHARD) as writer:
        for start in range(0, len(rows), 3):  # several record batches a shard, as large shards have
            writer.write_batch(pa.RecordBatch.from_pylist(rows[start : start + 3], schema=SHARD))
    return ShardRecord(
        file=path.name,
        packs=len(rows),
        examples=sum(len(row["seq_lengths"]) for row in rows),
        tokens=sum(len(row["input_ids"]) for row in rows),
        targets=sum(row["num_targets"] for row in rows),
        bytes=path.stat().st_size,
        sha256=sha256_file(path),
    )
