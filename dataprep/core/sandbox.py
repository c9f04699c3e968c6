"""The sandbox that chat templates are rendered in, without loading transformers, which takes most of a second.

It is built from Jinja2's own sandbox as transformers documents it for chat templates: immutable, blocks trimmed, loop
controls, `{% generation %}` blocks, `tojson` without HTML escapes, `raise_exception`, `strftime_now`. It is used only
where it was proven: `sandbox_agrees` compares it with transformers on the template at hand, over probe conversations.
"""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any

from jinja2 import Environment, Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

# What a stranger's template can raise when it is rendered in the sandbox.
TEMPLATE_ERRORS = (TemplateError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RecursionError)

_MOST_ATTRIBUTES = 10_000  # remembered at once; names may come from the rows

Render = Callable[[list[dict[str, Any]], list[dict[str, Any]] | None, bool], str]


def compile_template(template: str) -> Template:
    """Compile a chat template in a new sandbox. Raises jinja2.TemplateSyntaxError."""
    return _sandbox().from_string(template)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, which asks what an attribute may be once for each type: nothing else of the object decides."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._safe: dict[tuple[type, str], bool] = {}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Whether a template may read it."""
        key = type(obj), attr
        if key not in self._safe:
            if len(self._safe) >= _MOST_ATTRIBUTES:
                self._safe.clear()
            self._safe[key] = super().is_safe_attribute(obj, attr, value)
        return self._safe[key]


def _sandbox() -> Environment:
    environment = _Sandbox(
        trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationBlocks, "jinja2.ext.loopcontrols"]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise, "strftime_now": _now, "dict": _plain_dict, "namespace": _Names}
    return environment


class _GenerationBlocks(Extension):
    """`{% generation %}…{% endgeneration %}` renders what stands inside."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_inside"), [], [], body).set_lineno(line)

    @staticmethod
    def _inside(caller: Callable[[], str]) -> str:
        return caller()


class _Names(Namespace):
    """Jinja's namespace, closed to names that begin with an underscore."""

    def __init__(*arguments: Any, **names: Any) -> None:
        self, *rest = arguments
        for name in {**dict(*rest), **names}:
            _refuse_private(name)
        Namespace.__init__(self, *rest, **names)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_private(name)
        super().__setitem__(name, value)


def _refuse_private(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a chat template may not set {name!r}")


def _plain_dict(*arguments: Any, **items: Any) -> dict[Any, Any]:
    return dict(*arguments, **items)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise(message: str) -> None:
    raise TemplateError(message)


def _now(format: str) -> str:
    return datetime.now().strftime(format)


def render_chat(
    template: Template,
    names: dict[str, str],
    messages: list[dict[str, Any]],
    tools: list[dict[str, Any]] | None,
    add_generation_prompt: bool = False,
) -> str:
    """Render a conversation. `names` are special tokens that a template may use. Raises TEMPLATE_ERRORS."""
    given = [_with_thinking(message) for message in messages]
    arguments: dict[str, Any] = {"messages": given, "tools": tools, "documents": None, **names}
    return template.render(**arguments, add_generation_prompt=add_generation_prompt)


def _with_thinking(message: dict[str, Any]) -> dict[str, Any]:
    """Reasoning under its other name too, as transformers passes it."""
    return {"thinking": message["reasoning_content"], **message} if "reasoning_content" in message else message


def sandbox_agrees(template: str, names: dict[str, str], official: Render) -> bool:
    """Whether the sandbox renders every probe as `official` does, errors for errors."""
    compiled = compile_template(template)

    def ours(messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, prompt: bool) -> str:
        return render_chat(compiled, names, messages, tools, prompt)

    return all(
        _outcome(ours, messages, tools, prompt) == _outcome(official, messages, tools, prompt)
        for messages in _PROBES
        for tools in (None, [_TOOL])
        for prompt in (False, True)
    )


def _outcome(render: Render, messages: list[dict[str, Any]], tools: Any, prompt: bool) -> tuple[str, str]:
    try:
        return "text", render(messages, tools, prompt)
    except TEMPLATE_ERRORS as error:
        return "error", type(error).__name__


_TOOL = {
    "type": "function",
    "function": {
        "name": "look_up",
        "description": "Find <b>\"a thing\"</b> & 'more' 中文",
        "parameters": {
            "type": "object",
            "properties": {"what": {"type": "string", "enum": ["a", "b"]}, "n": {"type": "number", "default": 1.0}},
            "required": ["what"],
        },
    },
}
_CALL = {"type": "function", "id": "call00001", "function": {"name": "look_up", "arguments": {"what": "é", "n": 1.0}}}
_USER, _ANSWER = {"role": "user", "content": "Hi  <there>\n"}, {"role": "assistant", "content": " Hello & 你好 "}
_PROBES: tuple[list[dict[str, Any]], ...] = (
    [_USER],
    [_USER, _ANSWER],
    [_ANSWER, _USER],
    [{"role": "system", "content": "Be {kind}."}, _USER, _ANSWER, _USER, _ANSWER],
    [_USER, {"role": "assistant", "content": "<think>\nhm\n</think>\n\nSo."}, _USER, {**_ANSWER, "content": ""}],
    [_USER, {**_ANSWER, "reasoning_content": "let me see"}, _USER, {**_ANSWER, "reasoning_content": "again"}],
    [_USER, {"role": "assistant", "content": "", "tool_calls": [_CALL]}],
    [
        _USER,
        {"role": "assistant", "content": "Looking.", "tool_calls": [_CALL, _CALL], "reasoning_content": "which?"},
        {"role": "tool", "content": '{"a": [1, null]}', "name": "look_up", "tool_call_id": "call00001"},
        {"role": "tool", "content": "none", "name": "look_up", "tool_call_id": "call00001"},
        _ANSWER,
    ],
)
