"""Tool definitions that stand in a system text, inside the words that a known family of models wraps around them.

| family | its words |
|---|---|
| Qwen2.5, Qwen3 | `# Tools`, signatures within `<tools></tools>`, one a line, how to call; nothing after it |
| Hermes | `You are a function calling AI model.` … `<tools>[…]</tools>` … how to call |
| Glaive | `You are a helpful assistant with access to the following functions. Use them if required -`, objects |

The model's own template writes such words itself, so they are dropped; a text that differs stays as it stands, whole.
"""

import re

import orjson

from dataprep.stages.normalize.texts.calls import is_literal, literal_json, value_texts

_QWEN = re.compile(
    r"# Tools\n\nYou may call one or more functions to assist with the user query\.\n\n"
    r"You are provided with function signatures within <tools></tools> XML tags:\n<tools>(?P<tools>.*)</tools>\n\n"
    r"For each function call, return a json object with function name and arguments within <tool_call></tool_call> "
    r'XML tags:\n<tool_call>\n\{"name": <function-name>, "arguments": <args-json-object>\}\n</tool_call>\s*\Z',
    re.DOTALL,
)
_HERMES = re.compile(
    r"You are a function[- ]calling AI model\. You are provided with function signatures within "
    r"<tools>\s*</tools> XML tags\.\s*You may call one or more functions to assist with the user query\.\s*"
    r"(?:If available tools are not relevant in assisting (?:with|the|with the) user query, just respond in natural "
    r"conversational language\.\s*)?Don't make assumptions about what values to plug\s+into functions\.\s*"
    r"(?:After calling (?:&|and) executing the functions, you will be provided with function results within "
    r"<tool_response>\s*</tool_response> XML tags\.\s*)?(?:Here are the available tools:\s*)?"
    r"<tools>(?P<tools>.*)</tools>\s*"
    r"(?:(?:Use the following pydantic model json schema .*?)?For each function call,? return a json object with "
    r"function name and arguments within <tool_call>\s*</tool_call> XML tags(?: as follows)?:"
    r"|For each function call,? return a JSON object,? with the following pydantic model json schema for each:[^<]*"
    r"Each function call should be enclosed within <tool_call>\s*</tool_call> XML tags\.\s*Example:)"
    r"\s*<tool_call>[^<]*(?:<[\w-]+>[^<]*)*</tool_call>\s*\Z",
    re.DOTALL,
)
_GLAIVE = re.compile(
    r"You are a helpful assistant with access to the following functions\. "
    r"Use them if required ?-?:?(?P<tools>\s*\{.*)",
    re.DOTALL,
)


def may_hold_tools(text: str) -> bool:
    """Tell quickly whether a system text may hold tool definitions."""
    return "</tools>" in text or "functions. Use them if required" in text


def split_tools(text: str) -> tuple[str, str] | None:
    """Give a system text's own words and its tools as the text of a JSON array; None where it is none of the known."""
    for pattern in (_QWEN, _HERMES, _GLAIVE):
        found = pattern.search(text)
        tools = _array(found["tools"].strip()) if found else None
        if found and tools is not None:
            return text[: found.start()].rstrip(), tools
    return None


def same_tools(one: str, other: str) -> bool:
    """Tell whether two texts of JSON arrays define the same functions, wrapped in {"type", "function"} or not."""
    return _functions(one) == _functions(other)


def _functions(tools: str) -> list[object]:
    return [tool.get("function", tool) for tool in orjson.loads(tools)]


def _array(text: str) -> str | None:
    """Give an array's text, or that of objects one after another, as one array of objects; None where it is neither."""
    try:
        if not text.startswith("["):
            text = f"[{', '.join(value_texts(text))}]"
        elif is_literal(text):
            text = orjson.dumps(literal_json(text)).decode()
        tools = orjson.loads(text)
    except (ValueError, TypeError):
        return None
    return text if tools and all(isinstance(tool, dict) for tool in tools) else None
