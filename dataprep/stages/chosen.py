"""Chosen: a conversation and the user's options in, the dialogue to render out, with the messages to train on."""

from typing import Any

from dataprep.core.columns import Columns, rich_parts
from dataprep.core.trace import VALUES_OF_MESSAGES, Texts
from dataprep.stages.plan import Dialogue, RefusedError
from schemas.manifest import TokenOptions


def dialogue_of(columns: Columns, row: int, options: TokenOptions) -> Dialogue:
    """Conversation `row` as it is rendered. Raises RefusedError where nothing of it is to be trained on."""
    low, high = int(columns.offsets[row]), int(columns.offsets[row + 1])
    texts: Texts = {"content": columns.contents.texts(low, high)}
    roles = columns.roles(row)
    messages, tools, keys = None, None, None
    if columns.rich[row]:
        messages, tools = rich_parts(columns.records[row])
    wanted = _wanted(roles, columns.trains[low:high] if columns.trains is not None else None, messages, options)
    if messages is not None and options.thinking == "drop" and any("reasoning_content" in each for each in messages):
        record = columns.records[row]
        bare = [{**message, "reasoning": None} for message in record["messages"]]
        messages, tools = rich_parts({**record, "messages": bare})
    if messages is not None:
        texts["reasoning"] = [message.get("reasoning_content", "") for message in messages]
        texts |= {name: [message.get(name) for message in messages] for name in VALUES_OF_MESSAGES}
        texts["tools"] = [tools]
        keys = (tools is None, *map(tuple, messages))
    return Dialogue(roles=roles, texts=texts, messages=messages, tools=tools, keys=keys, wanted=wanted)


def wants_all(columns: Columns, options: TokenOptions) -> bool:
    """Whether each assistant message of each conversation is to be trained on."""
    return columns.trains is None and _wants_all(options)


def _wants_all(options: TokenOptions) -> bool:
    return options.train_on in ("assistant", "all") and options.turns != "last" and options.thinking != "only"


def _wanted(
    roles: tuple[str, ...],
    trains: list[bool | None] | None,
    messages: list[dict[str, Any]] | None,
    options: TokenOptions,
) -> tuple[bool, ...] | None:
    """Of each message, whether its turn is to be trained on; None where each assistant message's is."""
    only = options.thinking == "only"
    if only and not (messages and any(message.get("reasoning_content") for message in messages)):
        raise RefusedError("no-reasoning", "none of its messages has reasoning")
    if roles == ("text",) or (trains is None and _wants_all(options)):
        return None
    wanted = [role == "assistant" for role in roles]
    if trains is not None:
        wanted = [want and train is not False for want, train in zip(wanted, trains, strict=True)]
    for field_name, asked in (("tool_calls", options.train_on == "tool-calls"), ("reasoning_content", only)):
        if asked:
            has = [bool(message.get(field_name)) for message in messages or [{}] * len(roles)]
            wanted = [want and there for want, there in zip(wanted, has, strict=True)]
    if "last" in (options.turns, options.train_on) and True in wanted:
        last = len(wanted) - 1 - wanted[::-1].index(True)
        wanted = [number == last for number in range(len(wanted))]
    if True not in wanted and options.train_on != "all":
        raise RefusedError("no-targets", "no assistant message is to be trained on")
    return tuple(wanted)
