"""A shard: an Arrow IPC file whose rows are packs of whole examples, ready to be mapped. Spec: shard.md."""

from typing import Any

import pyarrow as pa

IGNORED_LABEL = -100

SHARD = pa.schema(
    [
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),
        pa.field("assistant_masks", pa.list_(pa.bool_()), nullable=False),  # true: this token is a target
        pa.field("seq_lengths", pa.list_(pa.int32()), nullable=False),  # of the examples inside, in order
        pa.field("num_targets", pa.int32(), nullable=False),
        pa.field("source_ids", pa.list_(pa.int32()), nullable=False),  # per example: index into manifest.sources
        pa.field("conversation_rows", pa.list_(pa.int32()), nullable=False),  # per example: row of conversations/
        pa.field("conversation_starts", pa.list_(pa.int32()), nullable=False),  # per example: its first token there
    ]
)


def with_labels(batch: dict[str, list[list[int]]]) -> dict[str, Any]:
    """Derive labels from masks: what `datasets.Dataset.map(..., batched=True)` needs for TRL and any HF trainer.

    Gives `input_ids` and `labels` (the id where the token is a target, -100 elsewhere; not shifted, models do that)
    and `seq_lengths`. The first token of an example is never a target, so the shift never crosses examples.
    """
    labels = [
        [token if target else IGNORED_LABEL for token, target in zip(ids, mask, strict=True)]
        for ids, mask in zip(batch["input_ids"], batch["assistant_masks"], strict=True)
    ]
    return {"input_ids": batch["input_ids"], "labels": labels, "seq_lengths": batch["seq_lengths"]}
