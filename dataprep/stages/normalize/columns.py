"""Conversations into Arrow: flat lists that grow row by row, then one record batch by way of offsets.

Building nested arrays from flat ones costs a tenth of building them from nested Python objects.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import Any

import pyarrow as pa

from dataprep.stages.normalize.message import Message
from schemas.conversation import CONVERSATION, MESSAGE, TOOL_CALL

_ROLE, _CONTENT = itemgetter(0), itemgetter(1)
_RARE_FIELDS = ("reasoning", "tool_calls", "name", "tool_call_id", "train")


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """Growing columns of conversations; `rare` holds (index of message, message) where it has more than a text."""

    ids: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    rows: list[int] = field(default_factory=list)
    tools: list[str | None] = field(default_factory=list)
    ends: list[int] = field(default_factory=lambda: [0])
    roles: list[str] = field(default_factory=list)
    contents: list[str] = field(default_factory=list)
    rare: list[tuple[int, Message]] = field(default_factory=list)

    def texts(self) -> list[str]:
        """What the users and assistants of each conversation say, or its document, as one text."""
        spoken = [
            c if r in ("user", "assistant", "text") else "" for r, c in zip(self.roles, self.contents, strict=True)
        ]
        return ["\n".join(spoken[low:high]) for low, high in pairwise(self.ends)]


def add_messages(columns: Columns, messages: list[Message]) -> None:
    """Append one conversation's messages."""
    if max(map(len, messages), default=0) > 2:
        columns.rare.extend((n, m) for n, m in enumerate(messages, len(columns.roles)) if len(m) > 2)
    columns.roles.extend(map(_ROLE, messages))
    columns.contents.extend(map(_CONTENT, messages))
    columns.ends.append(len(columns.roles))


def to_batch(columns: Columns) -> pa.RecordBatch:
    """Build the record batch of all conversations added, in the schema CONVERSATION."""
    origin_type = CONVERSATION.field("origin").type
    origin = pa.StructArray.from_arrays(
        [pa.array(columns.files, pa.string()), pa.array(columns.rows, pa.int64())], fields=list(origin_type)
    )
    fields = [pa.array(columns.roles, pa.string()), pa.array(columns.contents, pa.string()), *_rare_arrays(columns)]
    messages = pa.ListArray.from_arrays(
        pa.array(columns.ends, pa.int32()),
        pa.StructArray.from_arrays(fields, fields=list(MESSAGE)),
        type=CONVERSATION.field("messages").type,
    )
    arrays = [pa.array(columns.ids, pa.string()), pa.array(columns.sources, pa.string()), origin, messages]
    return pa.record_batch([*arrays, pa.array(columns.tools, pa.string())], schema=CONVERSATION)


def _rare_arrays(columns: Columns) -> list[pa.Array]:
    arrays = []
    for place, name in enumerate(_RARE_FIELDS, 2):
        kind = MESSAGE.field(name).type
        found = [(index, message[place]) for index, message in columns.rare if len(message) > place]
        if not any(value is not None for _, value in found):
            arrays.append(pa.nulls(len(columns.roles), kind))
            continue
        values: list[Any] = [None] * len(columns.roles)
        for index, value in found:
            values[index] = value if name != "tool_calls" or value is None else _call_objects(value)
        arrays.append(pa.array(values, kind))
    return arrays


def _call_objects(calls: tuple[tuple[str | None, str, str], ...]) -> list[dict[str, str | None]]:
    return [dict(zip(TOOL_CALL.names, call, strict=True)) for call in calls]
