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

import orjson

from dataprep.stages.normalize.calls import exact_json, read_call, value_end, value_texts, written_calls
from dataprep.stages.normalize.message import ToolCall
from dataprep.stages.normalize.reasons import TurnedAway, shown

_OPENING = re.compile(
    r"<tool_call>(?=\s*(?:[\[{<]|$))|(?<![^\n])<tool_call>|<function=(?=[\w.-]+>)|<functioncall>(?=\s*(?:\{|$))"
    r"|<\|python_tag\|>(?=\s*[\[{])|\[TOOL_CALLS\](?=\s*(?:\[|\{|[\w.-]+\[ARGS\]|$))"
)
_BLOCK = re.compile(r"\s*<tool_call>\s*")
_BLOCK_END = re.compile(r"\s*</tool_call>")
_FUNCTION = re.compile(r"\s*<function=([^>\n]+)>(.*?)</function>\s*", re.DOTALL)
_PARAMETER = re.compile(r"\s*<parameter=([^>\n]+)>\n?(.*?)\n?</parameter>\s*", re.DOTALL)
_QUOTED = re.compile(r"""\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:\s*'(.*)'\s*\}\s*""", re.DOTALL)
_NAMED = re.compile(r"\s*([\w.-]+)\[ARGS\](.*)", re.DOTALL)
_STOP = re.compile(r"\s*(?:<\|(?:endoftext|im_end|eot_id|eom_id)\|>|</s>)?\s*\Z")


def text_calls(text: str, where: str) -> tuple[str, tuple[ToolCall, ...]] | None:
    """Give what an assistant's text says before its calls, and the calls; None where it makes none.

    `where` begins the detail of a row that is turned away.
    """
    if "<tool_call>" not in text and "<func" not in text and "<|pyth" not in text and "[TOOL_CALLS]" not in text:
        return None
    opening = next((mark for mark in _OPENING.finditer(text) if not _quoted(text, mark.start())), None)
    if opening is None:
        return None
    stop = _STOP.search(text)
    body = text[opening.start() : stop.start() if stop else len(text)]
    calls = _READERS[opening.group()](body, where)
    return text[: opening.start()].rstrip(), calls


def _quoted(text: str, place: int) -> bool:
    return text[place - 1 : place] == "`" or text.count("```", 0, place) % 2 == 1


def _blocks(body: str, where: str) -> tuple[ToolCall, ...]:
    calls: list[ToolCall] = []
    end = 0
    while opening := _BLOCK.match(body, end):
        start = opening.end()
        close = _block_close(body, start)
        if close is None:
            raise TurnedAway("bad-tool-call", f"{where}: a <tool_call> is cut off: it has no </tool_call>")
        inner = body[start : close.start()]
        calls += _functions(inner, where) if inner.startswith("<function=") else written_calls(inner, where)
        end = close.end()
    _require_end(body[end:], where)
    return tuple(calls)


def _block_close(body: str, start: int) -> re.Match[str] | None:
    """Find the mark after the call; in JSON, a mark within a string is none."""
    try:
        close = _BLOCK_END.match(body, value_end(body, start))
    except ValueError:
        close = None
    return close or _BLOCK_END.search(body, start)


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


def _python_tag(body: str, where: str) -> tuple[ToolCall, ...]:
    return _listed(body.replace("<|python_tag|>", ";"), where)


def _mistral(body: str, where: str) -> tuple[ToolCall, ...]:
    calls: list[ToolCall] = []
    for piece in body.split("[TOOL_CALLS]")[1:]:
        named = _NAMED.fullmatch(piece)
        if named:
            calls.append(read_call({"name": named[1], "arguments": named[2].strip()}, where))
        else:
            calls += _listed(piece, where)
    return tuple(calls)


def _listed(text: str, where: str) -> tuple[ToolCall, ...]:
    try:
        texts = value_texts(text)
    except ValueError:
        texts = [text]
    if not texts:
        raise TurnedAway("bad-tool-call", f"{where}: nothing follows the mark of a call")
    return tuple(call for value in texts for call in written_calls(value, where))


def _require_end(rest: str, where: str) -> None:
    if rest.strip():
        raise TurnedAway("bad-tool-call", f"{where}: after a call stands {shown(rest.strip())}")


_READERS: dict[str, Callable[[str, str], tuple[ToolCall, ...]]] = {
    "<tool_call>": _blocks,
    "<function=": _functions,
    "<functioncall>": _glaive,
    "<|python_tag|>": _python_tag,
    "[TOOL_CALLS]": _mistral,
}
