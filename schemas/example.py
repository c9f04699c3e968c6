"""An example: one conversation as ids and mask, before packing; kept in the cache by content. Spec: example.md."""

import pyarrow as pa

EXAMPLES_VERSION = 1  # part of every fingerprint: a change of what the columns hold begins anew

EXAMPLE = pa.schema(
    [
        pa.field("input_ids", pa.list_(pa.int32()), nullable=False),  # empty where the conversation was turned away
        pa.field("assistant_masks", pa.list_(pa.bool_()), nullable=False),
        pa.field("turn_starts", pa.list_(pa.int32()), nullable=False),  # first token of each exchange; the first is 0
        pa.field("turn_ends", pa.list_(pa.int32()), nullable=False),  # one past its assistant turn's end token
        pa.field("reason", pa.string()),  # why it was turned away; null where it was kept
        pa.field("detail", pa.string()),
    ]
)
