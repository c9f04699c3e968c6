"""A conversation's examples as ids and mask, before packing; kept in the cache by content. Spec: example.md."""

import pyarrow as pa

EXAMPLES_FORMAT = "sftpack.examples"
EXAMPLES_VERSION = 3  # part of every fingerprint: a change of what the columns hold begins anew

_COUNTS = pa.map_(pa.string(), pa.int32())

EXAMPLE = pa.schema(
    [
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),  # empty where the conversation was turned away
        pa.field("assistant_masks", pa.list_(pa.bool_()), nullable=False),
        pa.field("example_lengths", pa.list_(pa.int32()), nullable=False),  # of its examples, laid end to end
        pa.field("turn_starts", pa.list_(pa.int32()), nullable=False),  # first token of each exchange; the first is 0
        pa.field("turn_ends", pa.list_(pa.int32()), nullable=False),  # one past its assistant turn's end token
        pa.field("trained_turns", pa.int32(), nullable=False),
        pa.field("differing_turns", _COUNTS, nullable=False),  # of these, shown otherwise than by inference: by what
        pa.field("left_out_turns", _COUNTS, nullable=False),  # not trained on, for what differs
        pa.field("prompts", _COUNTS, nullable=False),  # of the trained, by the template argument that makes the prompt
        pa.field("remaining_turns", pa.int32(), nullable=False),  # of the differing, how many --turns exact leaves
        pa.field("notes", pa.list_(pa.string()), nullable=False),  # what else is to be known of it
        pa.field("exact_tokens", pa.int32(), nullable=False),  # about so many would --turns exact give
        pa.field("reason", pa.string()),  # why it was turned away; null where it was kept
        pa.field("detail", pa.string()),
    ]
)
