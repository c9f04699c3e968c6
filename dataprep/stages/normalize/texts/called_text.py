"""Tool calls that stand in an assistant's text, between the marks that models write around them.

| family | as it stands in the text |
|---|---|
| Hermes, Qwen2.5, Qwen3 | `<tool_call>{"name", "arguments"}</tool_call>`, one or several |
| Qwen3-Coder | `<tool_call><function=NAME><parameter=KEY>TEXT</parameter></function></tool_call>`; values are texts |
| Llama 3 | `<function=NAME>{…}</function>` |
| Glaive | `<functioncall> {"name", "arguments"}`; the arguments may be JSON between single quotes |
| Llama 3 | `<|python_tag|>{"name", "parameters"}` |
| Mistral | `[TOOL_CALLS] [{"name", "arguments"}]`, `[TOOL_CALLS]NAME[ARGS]{…}` |

A mark between backticks, in a block of code, or followed by other things than a call is a text's own word. A call that
is broken, cut off or followed by more text turns the row away: its parts could not be told in their order.
"""

import re
from collections.abc import Callable
from contextlib import suppress

import orjson

from dataprep.stages.normalize.message import ToolCall
from dataprep.stages.normalize.reasons import TurnedAway, shown
from dataprep.stages.normalize.texts.calls import exact_json, read_call, value_end, written_calls

_OPENING = re.compile(
    r"<tool_call>(?=\s*(?:[\[{<]|$))|(?<![^\n])<tool_call>|(?<![^\n])<function=(?=[\w.-]+>)|<functioncall>(?=\s*(?:\{|$))"
    r"|<\|python_tag\|>(?=\s*[\[{])|\[TOOL_CALLS\](?=\s*(?:\[|\{|[\w.-]+\[ARGS\]|$))"
)
_BLOCK = re.compile(r"\s*<tool_call>\s*")
_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>(.*?)</function>\s*", re.DOTALL)
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>\s*", re.DOTALL)
_QUOTED = re.compile(r"""\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*'(.*)'\s*\}\s*""", re.DOTALL)
_NAMED = re.compile(r"([\w.-]+)\[ARGS\]\s*")
_BETWEEN = re.compile(r"(?:[\s,;]|<\|python_tag\|>|\[TOOL_CALLS\])*")
_CLOSE = "</tool_call>"
# What may end a turn; it is no part of a call.
_ENDS = ("<|endoftext|>", "<|im_end|>", "<|eot_id|>", "<|eom_id|>", "</s>")


def text_calls(text: str, where: str) -> tuple[str, tuple[ToolCall, ...]] | None:
    """Give what an assistant's text says before its calls, and the calls; None where it makes none.

    `where` begins the detail of a row that is turned away.
    """
    if "<tool_call>" not in text and "<func" not in text and "<|pyth" not in text and "[TOOL_CALLS]" not in text:
        return None
    opening = next((mark for mark in _OPENING.finditer(text) if not _quoted(text, mark.start())), None)
    if opening is None:
        return None
    body = text[opening.start() :].rstrip()
    for end in _ENDS:
        body = body.removesuffix(end)
    calls = _READERS[opening.group()](body.rstrip(), where)
    return text[: opening.start()].rstrip(), calls


def _quoted(text: str, place: int) -> bool:
    return text[place - 1 : place] == "`" or text.count("```", 0, place) % 2 == 1


def _blocks(body: str, where: str) -> tuple[ToolCall, ...]:
    calls: list[ToolCall] = []
    end = 0
    while opening := _BLOCK.match(body, end):
        start = opening.end()
        close = _block_close(body, start)
        if close < 0:
            raise TurnedAway("bad-tool-call", f"{where}: a <tool_call> is cut off: it has no </tool_call>")
        inner = body[start:close]
        calls += _functions(inner, where) if inner.startswith("<function=") else written_calls(inner, where)
        end = close + len(_CLOSE)
    _require_end(body[end:], where)
    return tuple(calls)


def _block_close(body: str, start: int) -> int:
    """Find the mark after the call, -1 where there is none; in JSON, a mark within a string is none."""
    with suppress(ValueError):
        start = value_end(body, start)
    return body.find(_CLOSE, start)


def _functions(body: str, where: str) -> tuple[ToolCall, ...]:
    calls: list[ToolCall] = []
    end = 0
    while function := _FUNCTION.match(body, end):
        inner = function[2].strip()
        arguments = inner if inner.startswith("{") else _parameters(function[2], where)
        calls.append(read_call({"name": function[1].strip(), "arguments": arguments}, where))
        end = function.end()
    if body.startswith("<function=", end):
        raise TurnedAway("bad-tool-call", f"{where}: a <function=…> is cut off: it has no </function>")
    _require_end(body[end:], where)
    return tuple(calls)


def _parameters(body: str, where: str) -> str:
    values: dict[str, str] = {}
    end = 0
    while parameter := _PARAMETER.match(body, end):
        values[parameter[1].strip()] = parameter[2]
        end = parameter.end()
    _require_end(body[end:], where)
    return orjson.dumps(values).decode()


def _glaive(body: str, where: str) -> tuple[ToolCall, ...]:
    pieces = body.split("<functioncall>")[1:]
    if len(pieces) > 1:
        with suppress(TurnedAway):  # the mark may stand in a string
            return _glaive_call(body.removeprefix("<functioncall>"), where)
    return tuple(call for piece in pieces for call in _glaive_call(piece, where))


def _glaive_call(piece: str, where: str) -> tuple[ToolCall, ...]:
    piece = piece.strip().removesuffix("</functioncall>")
    quoted = _QUOTED.fullmatch(piece)
    if quoted is None:
        return written_calls(piece, where)
    arguments = quoted[2]
    try:
        orjson.loads(arguments)
    except ValueError:
        arguments = arguments.replace("\\'", "'")
    return (read_call({"name": exact_json(quoted[1]), "arguments": arguments}, where),)


def _one_by_one(body: str, where: str) -> tuple[ToolCall, ...]:
    """Read calls that stand one after another, as JSON or as NAME[ARGS]{…}, each after a mark or only the first."""
    calls: list[ToolCall] = []
    place = _BETWEEN.match(body).end()  # type: ignore[union-attr]
    while place < len(body):
        named = _NAMED.match(body, place)
        start = named.end() if named else place
        try:
            end = value_end(body, start)
        except ValueError:
            end = len(body)
        value = body[start:end]
        calls += [read_call({"name": named[1], "arguments": value}, where)] if named else written_calls(value, where)
        place = _BETWEEN.match(body, end).end()  # type: ignore[union-attr]
    if not calls:
        raise TurnedAway("bad-tool-call", f"{where}: nothing follows the mark of a call")
    return tuple(calls)


def _require_end(rest: str, where: str) -> None:
    if rest.strip():
        raise TurnedAway("bad-tool-call", f"{where}: after a call stands {shown(rest.strip())}")


_READERS: dict[str, Callable[[str, str], tuple[ToolCall, ...]]] = {
    "<tool_call>": _blocks,
    "<function=": _functions,
    "<functioncall>": _glaive,
    "<|python_tag|>": _one_by_one,
    "[TOOL_CALLS]": _one_by_one,
}
