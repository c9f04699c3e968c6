"""Tool calls and tool definitions, in each way that datasets and models write them."""

import json
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rows import convert
from transformers.utils.chat_template_utils import render_jinja_template

from dataprep.stages.normalize.message import as_json, identify
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.normalize.texts.called_text import text_calls
from dataprep.stages.normalize.texts.tools import tools_text

AREA = ((None, "area", '{"side":1.0}'),)
QWEN_SYSTEM = """Be brief.

# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
{"type": "function", "function": {"name": "area", "parameters": {}}}
{"type": "function", "function": {"name": "now"}}
</tools>

For each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""
QWEN_TOOLS = (
    '[{"type": "function", "function": {"name": "area", "parameters": {}}}, '
    '{"type": "function", "function": {"name": "now"}}]'
)
HERMES_SYSTEM = (
    "You are a function calling AI model. You are provided with function signatures within <tools> </tools> XML tags. "
    "You may call one or more functions to assist with the user query. Don't make assumptions about what values to "
    "plug into functions.\n<tools>\n[%s]\n</tools>\nFor each function call return a JSON object, with the following "
    "pydantic model json schema for each: {'title': 'FunctionCall'}\n"
)
HERMES_TAIL = (
    "Use the following pydantic model json schema for each tool call you will make: {'title': 'FunctionCall'}\n"
    "For each function call return a json object with function name and arguments within <tool_call> </tool_call> XML "
    "tags as follows:\n<tool_call>\n{'arguments': <args-dict>, 'name': <function-name>}\n</tool_call>"
)
GLAIVE_SYSTEM = "You are a helpful assistant with access to the following functions. Use them if required -\n"


def converted(*turns: tuple[str, str], **more: object) -> tuple[list, str | None]:
    messages = [{"role": role, "content": content} for role, content in turns]
    return convert({"messages": messages, **more})[1:]


def turned_away(text: str) -> TurnedAway:
    with pytest.raises(TurnedAway) as caught:
        text_calls(text, "message 2")
    assert "\n" not in caught.value.detail
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "area", "arguments": {"side": 1.0}}\n</tool_call>',
        '<tool_call>{"arguments": {"side": 1.0}, "name": "area"}</tool_call><|im_end|>\n',
        "<tool_call>\n{'arguments': {'side': 1.0}, 'name': 'area'}\n</tool_call>",
        "<tool_call>\n{\"name\": 'area', \"arguments\": {'side': 1.0,}}\n</tool_call>",
        '<functioncall> {"name": "area", "arguments": {"side": 1.0}} <|endoftext|>',
        """<functioncall> {"name": "area", "arguments": '{"side":1.0}'} <|endoftext|>""",
        '<|python_tag|>{"name": "area", "parameters": {"side": 1.0}}<|eom_id|>',
        '[TOOL_CALLS] [{"name": "area", "arguments": {"side": 1.0}}]</s>',
        '[TOOL_CALLS]area[ARGS]{"side":1.0}',
        '<functioncall>{"name": "area", "arguments": {"side": 1.0}}</functioncall>',
        '<function=area>{"side":1.0}</function>',
    ],
)
@pytest.mark.parametrize("before", ["", "Let me see."])
def test_a_call_in_an_assistants_text_becomes_a_call_and_what_stands_before_it_the_content(
    text: str, before: str
) -> None:
    written = f"{before}\n{text}" if before else text
    assert text_calls(written, "message 2") == (before, AREA)
    assert converted(("user", "Area?"), ("assistant", written), tools=[{"name": "area"}])[0] == [
        ("user", "Area?"),
        ("assistant", before, None, AREA),
    ]


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "a", "arguments": {}}\n</tool_call>\n'
        '<tool_call>\n{"name": "b", "arguments": "{\\"n\\":  1.0}"}\n</tool_call>',
        '<tool_call>[{"name": "a", "arguments": {}}, {"name": "b", "arguments": "{\\"n\\":  1.0}"}]</tool_call>',
        """<functioncall> {"name": "a", "arguments": '{}'} <functioncall> {"name": "b", "arguments": '{"n":  1.0}'}""",
        '<|python_tag|>{"name": "a", "parameters": {}}; {"name": "b", "parameters": "{\\"n\\":  1.0}"}',
        '[TOOL_CALLS]a[ARGS]{}[TOOL_CALLS]b[ARGS]{"n":  1.0}',
    ],
)
def test_several_calls_keep_their_order_and_arguments_given_as_text_keep_it(text: str) -> None:
    assert text_calls(text, "message 2") == ("", ((None, "a", "{}"), (None, "b", '{"n":  1.0}')))


def test_qwen3_coder_gives_each_value_as_text() -> None:
    text = (
        "Writing.\n<tool_call>\n<function=write>\n<parameter=path>\na.py\n</parameter>\n"
        "<parameter=body>\nif a < 1.0:\n    b = {}\n\n</parameter>\n</function>\n</tool_call>"
    )
    arguments = '{"path":"a.py","body":"if a < 1.0:\\n    b = {}\\n"}'
    assert text_calls(text, "x") == ("Writing.", ((None, "write", arguments),))
    alone = "<function=now>\n</function>\n<function=area>\n<parameter=side>\n1.0\n</parameter>\n</function>"
    assert text_calls(alone, "x") == ("", ((None, "now", "{}"), (None, "area", '{"side":"1.0"}')))


def test_glaive_may_escape_an_apostrophe_in_its_single_quotes() -> None:
    text = """<functioncall> {"name": "say", "arguments": '{"text": "it\\'s"}'} <|endoftext|>"""
    assert text_calls(text, "x") == ("", ((None, "say", '{"text": "it\'s"}'),))


def test_a_mark_within_a_string_of_the_arguments_ends_nothing() -> None:
    text = '<tool_call>{"name": "say", "arguments": {"text": "a </tool_call> b"}}</tool_call>'
    assert text_calls(text, "x") == ("", ((None, "say", '{"text":"a </tool_call> b"}'),))
    for before, after in (("[TOOL_CALLS] [", "]"), ("<|python_tag|>", ""), ("<functioncall> ", " <|endoftext|>")):
        arguments = '{"text":"[TOOL_CALLS] <|python_tag|> <functioncall> {"}'
        text = f'{before}{{"name": "say", "arguments": {arguments}}}{after}'
        assert text_calls(text, "x") == ("", ((None, "say", arguments),))


@pytest.mark.parametrize(
    "text",
    [
        "Hello",
        "a < b",
        "Write `<tool_call>{}</tool_call>` around it.",
        'An example:\n```\n<tool_call>{"name": "a", "arguments": {}}</tool_call>\n```\nThat is all.',
        "The mark <tool_call> begins a call.",
        "The token <|python_tag|> precedes code.",
        "The mark [TOOL_CALLS] begins a call.",
        "Use <functioncall> for it.",
        "Begin with <function=NAME> then.",
    ],
)
def test_a_text_that_only_speaks_of_marks_makes_no_call(text: str) -> None:
    assert text_calls(text, "message 2") is None
    assert converted(("user", "How?"), ("assistant", text))[0] == [("user", "How?"), ("assistant", text)]


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ('<tool_call>\n{"name": "a", "argum', "message 2: a <tool_call> is cut off: it has no </tool_call>"),
        ('<tool_call>{"name": "a", "arguments": {}}', "message 2: a <tool_call> is cut off: it has no </tool_call>"),
        ("Wait.\n<tool_call>", "message 2: a <tool_call> is cut off: it has no </tool_call>"),
        ("<tool_call>{name: a}</tool_call>", "message 2: the call is not JSON: "),
        ("<tool_call>\na(1)\n</tool_call>", "message 2: the call is not JSON: "),
        ('<tool_call>{"name": "a", "arguments": {}}</tool_call> Done.', "message 2: after a call stands 'Done.'"),
        ('<tool_call>{"arguments": {}}</tool_call>', "message 2: a tool call has no name"),
        ('<functioncall> {"name": "a", "arguments": \'{"b": \'} <|endoftext|>', "message 2: arguments of 'a' are not"),
        ('<functioncall> {"name": "a", "arg', "message 2: the call is not JSON: "),
        ("<functioncall>", "message 2: the call is not JSON: "),
        ("<function=a>\n<parameter=b>\nc", "message 2: a <function=…> is cut off: it has no </function>"),
        ("<function=a>\n<parameter=b>\nc</function>", "message 2: after a call stands '<parameter=b>"),
        ("[TOOL_CALLS]", "message 2: nothing follows the mark of a call"),
        ('[TOOL_CALLS] [{"name": "a"', "message 2: the call is not JSON: "),
        ("<tool_call>{'name': 'a', 'arguments': {1, 2}}</tool_call>", "message 2: the call is not JSON: "),
    ],
)
def test_a_broken_call_is_turned_away(text: str, detail: str) -> None:
    away = turned_away(text)
    assert (away.reason, away.detail[: len(detail)]) == ("bad-tool-call", detail)


def test_responses_become_tool_messages_one_for_each() -> None:
    call = '<tool_call>{"name": "area", "arguments": {"side": 1.0}}</tool_call>'
    two = "<tool_response>\n1.0\n</tool_response>\n<tool_response>\n{'a': 2}\n</tool_response>"
    for role in ("user", "tool"):
        assert converted(("user", "Area?"), ("assistant", call), (role, two), ("assistant", "It is 1."))[0] == [
            ("user", "Area?"),
            ("assistant", "", None, AREA),
            ("tool", "1.0"),
            ("tool", "{'a': 2}"),
            ("assistant", "It is 1."),
        ]


def test_a_users_text_with_marks_is_touched_only_where_it_answers_a_call() -> None:
    text = "<tool_response>\n1.0\n</tool_response>"
    asked = "What is <tool_call> and <think>? \n</think>"
    messages = [("user", asked), ("assistant", "Ah <b>."), ("user", text), ("assistant", "Hm <b>.")]
    assert converted(*messages)[0] == messages


def test_glaive_rows_give_tools_calls_and_results() -> None:
    area, now = '{\n "name": "area",\n "ratio": 1.0}', '{"name": "now"}'
    call = """Sure. <functioncall> {"name": "area", "arguments": '{"side":1.0}'} <|endoftext|>"""
    messages, tools = converted(
        ("system", f"{GLAIVE_SYSTEM}{area}\n\n{now}\n"),
        ("user", "Area?"),
        ("assistant", call),
        ("function", 'FUNCTION RESPONSE: {"area": 1.0}'),
        ("assistant", "It is 1."),
    )
    assert messages == [
        ("user", "Area?"),
        ("assistant", "Sure.", None, AREA),
        ("tool", '{"area": 1.0}'),
        ("assistant", "It is 1."),
    ]
    assert tools == f"[{area}, {now}]"


def test_tools_that_do_not_parse_stay_in_the_system_text() -> None:
    for text in (f"{GLAIVE_SYSTEM}{{a}}", f'{GLAIVE_SYSTEM}{{"name": "a"}} Thanks.', "Use <tools>[{}]</tools> freely."):
        assert converted(("system", text), ("assistant", "Hi")) == ([("system", text), ("assistant", "Hi")], None)


def test_qwens_own_words_around_tools_are_dropped() -> None:
    expected = [("system", "Be brief."), ("user", "Hello"), ("assistant", "Hi")]
    assert converted(("system", QWEN_SYSTEM), ("user", "Hello"), ("assistant", "Hi")) == (expected, QWEN_TOOLS)


def test_hermes_words_around_tools_are_dropped() -> None:
    head = HERMES_SYSTEM.split("For each")[0]
    tool = '{"type": "function", "function": {"name": "area", "ratio": 1.0}}'
    assert converted(("system", head % tool + HERMES_TAIL), ("assistant", "Hi")) == ([("assistant", "Hi")], f"[{tool}]")
    literal = "{'name': 'area', 'on': True}"
    tools = converted(("system", head % literal + HERMES_TAIL), ("assistant", "Hi"))[1]
    assert tools == '[{"name":"area","on":true}]'


def test_hermes_longer_words_around_tools_are_dropped_and_own_words_before_them_are_kept() -> None:
    text = (
        "Be brief.\n\nYou are a function calling AI model. You are provided with function signatures within <tools> "
        "</tools> XML tags. You may call one or more functions to assist with the user query. If available tools are "
        "not relevant in assisting with user query, just respond in natural conversational language. Don't make "
        "assumptions about what values to plug into functions. After calling & executing the functions, you will be "
        "provided with function results within <tool_response> </tool_response> XML tags. Here are the available "
        'tools:\n<tools>\n[{"name": "area"}]\n</tools>\nFor each function call return a JSON object, with the '
        "following pydantic model json schema for each:\n{'title': 'FunctionCall'}\nEach function call should be "
        "enclosed within <tool_call> </tool_call> XML tags.\nExample:\n<tool_call>\n{'name': <function-name>,"
        "'arguments': <args-dict>}\n</tool_call>"
    )
    expected = [("system", "Be brief."), ("assistant", "Hi")]
    assert converted(("system", text), ("assistant", "Hi")) == (expected, '[{"name": "area"}]')


def test_other_words_around_tools_stay_as_they_are() -> None:
    text = HERMES_SYSTEM % '{"name": "area"}'
    assert converted(("system", text), ("assistant", "Hi")) == ([("system", text), ("assistant", "Hi")], None)


def test_tools_in_a_column_and_in_the_system_text_are_said_once_where_they_agree() -> None:
    turns = (("system", QWEN_SYSTEM), ("assistant", "Hi"))
    same = '[{"name": "area", "parameters": {}},  {"name": "now"}]'
    assert converted(*turns, tools=same) == ([("system", "Be brief."), ("assistant", "Hi")], same)
    assert converted(*turns, tools='[{"name": "b"}]') == (list(turns), '[{"name": "b"}]')


@pytest.mark.parametrize("tools", ["null", "[]", "", [], None])
def test_an_empty_list_of_tools_is_none(tools: object) -> None:
    assert converted(("assistant", "Hi"), tools=tools)[1] is None


def test_tools_may_be_a_python_literal_and_names_alone_are_no_definitions() -> None:
    assert converted(("assistant", "Hi"), tools="[{'name': 'a', 'n': 1.0}]")[1] == '[{"name":"a","n":1.0}]'
    assert converted(("assistant", "Hi"), available_tools=["a", "b"])[1] is None


@pytest.mark.parametrize("key", ["tools", "functions", "available_tools"])
def test_tools_may_stand_under_several_keys_and_as_a_list_of_texts(key: str) -> None:
    assert converted(("assistant", "Hi"), **{key: '[{"name":  "a"}]'})[1] == '[{"name":  "a"}]'
    assert (
        converted(("assistant", "Hi"), **{key: ['{"name":  "a"}', '{"n": 1.0}']})[1] == '[{"name":  "a"}, {"n": 1.0}]'
    )


def test_the_first_message_may_bring_the_tools_along() -> None:
    first = {"role": "system", "content": "Be brief.", "tools": [{"name": "area"}]}
    found = convert([first, {"role": "assistant", "content": "Hi"}])
    assert found[1:] == ([("system", "Be brief."), ("assistant", "Hi")], '[{"name":"area"}]')


def test_a_react_call_is_read_where_there_are_tools_one_answers_and_nothing_asks_for_the_style() -> None:
    text = 'Thought: I need the area.\nAction: area\nAction Input: {"side":1.0}\nObservation:'
    rest = (("tool", "1.0"), ("assistant", "It is 1."))
    tools = [{"name": "area"}]
    assert converted(("user", "Area?"), ("assistant", text), *rest, tools=tools)[0] == [
        ("user", "Area?"),
        ("assistant", "I need the area.", None, AREA),
        *rest,
    ]
    prompted = (("user", "Answer as Thought, Action, Action Input."), ("assistant", text), *rest)
    assert converted(*prompted, tools=tools)[0] == list(prompted)
    alone = (("user", "Area?"), ("assistant", text))
    assert converted(*alone, tools=tools)[0] == list(alone)
    assert converted(*alone, *rest)[0] == [*alone, *rest]


def test_sharegpt_calls_may_carry_marks_and_reasoning() -> None:
    for value in (
        '<think>\nHm.\n</think>\n\n{"name": "area", "arguments": {"side": 1.0}}',
        '<think>\nHm.\n</think>\n\n<tool_call>\n{"name": "area", "arguments": {"side": 1.0}}\n</tool_call>',
    ):
        row = {"conversations": [{"from": "function_call", "value": value}]}
        assert convert(row)[1] == [("assistant", "", "Hm.", AREA)]
    turn = {"role": "tool_call", "content": '{"name": "area", "arguments": {"side": 1.0}}', "reasoning_content": "Hm."}
    assert convert([turn])[1] == [("assistant", "", "Hm.", AREA)]


@pytest.mark.parametrize("answers", [[{"name": "area", "arguments": {"side": 1.0}}], None])
def test_xlam_rows(answers: object) -> None:
    answers = answers or '[{"name": "area", "arguments": {"side": 1.0}}]'
    row = {"id": 0, "query": "Area?", "tools": '[{"name":  "area"}]', "answers": answers}
    assert convert(row) == ("xlam", [("user", "Area?"), ("assistant", "", None, AREA)], '[{"name":  "area"}]')


@pytest.mark.parametrize(
    ("answers", "detail"), [("[]", "answers: the list of calls is empty"), ("Yes.", "answers: the call is not JSON")]
)
def test_xlam_rows_without_a_call_are_turned_away(answers: str, detail: str) -> None:
    with pytest.raises(TurnedAway, match=detail) as caught:
        convert({"query": "Area?", "tools": "[]", "answers": answers})
    assert caught.value.reason == "bad-tool-call"


def test_tool_calls_may_be_json_text() -> None:
    turn = {"role": "assistant", "content": "", "tool_calls": '[{"name": "area", "arguments": {"side": 1.0}}]'}
    assert convert({"messages": [turn]})[1] == [("assistant", "", None, AREA)]


def test_anthropic_parts() -> None:
    row = {
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": "Area?"},
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "A square.", "signature": "x"},
                    {"type": "text", "text": "Let me see."},
                    {"type": "tool_use", "id": "t1", "name": "area", "input": {"side": 1.0}},
                ],
            },
            {
                "role": "user",
                "content": [
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "1.0"}]},
                    {"type": "text", "text": "In words?"},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "One."}]},
        ],
    }
    assert convert(row)[1] == [
        ("system", "Be brief."),
        ("user", "Area?"),
        ("assistant", "Let me see.", "A square.", (("t1", "area", '{"side":1.0}'),)),
        ("tool", "1.0", None, None, None, "t1"),
        ("user", "In words?"),
        ("assistant", "One."),
    ]


def test_gemini_contents() -> None:
    row = {
        "systemInstruction": {"parts": [{"text": "Be brief."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Area?"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "area", "args": {"side": 1.0}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "area", "response": {"area": 1.0}}}]},
            {"role": "model", "parts": [{"text": "A square.", "thought": True}, {"text": "It is "}, {"text": "1."}]},
        ],
    }
    assert convert(row) == (
        "turns",
        [
            ("system", "Be brief."),
            ("user", "Area?"),
            ("assistant", "", None, AREA),
            ("tool", '{"area":1.0}', None, None, "area"),
            ("assistant", "It is 1.", "A square."),
        ],
        None,
    )


def test_text_after_a_call_part_is_turned_away() -> None:
    parts = [{"type": "tool_use", "id": "t1", "name": "a", "input": {}}, {"type": "text", "text": "Done."}]
    with pytest.raises(TurnedAway, match=r"message 1: after a call stands 'Done\.'"):
        convert({"messages": [{"role": "assistant", "content": parts}]})


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
NAMES = st.from_regex(r"[a-z][a-z_.-]{0,8}", fullmatch=True)
NUMBERS = st.integers() | st.integers(-(10**40), 10**40) | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
ARGUMENTS = st.dictionaries(TEXT, VALUES, max_size=4)
CALLS = st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=3)
BEFORE = st.text("ab <{é中\n", max_size=8).map(str.strip)


@given(CALLS, BEFORE, st.booleans(), st.booleans())
def test_calls_come_back_from_every_way_to_write_them(
    calls: list[tuple[str, dict]], before: str, as_text: bool, compact: bool
) -> None:
    separators = (",", ":") if compact else None

    def written(value: object) -> str:
        return json.dumps(value, ensure_ascii=compact, separators=separators)

    given_arguments = [written(arguments) if as_text else arguments for _, arguments in calls]
    flat = [{"name": name, "arguments": a} for (name, _), a in zip(calls, given_arguments, strict=True)]
    hermes = "\n".join(f"<tool_call>\n{written(call)}\n</tool_call>" for call in flat)
    mistral = f"[TOOL_CALLS] {written(flat)}"
    llama = "<|python_tag|>" + "; ".join(
        written({"name": call["name"], "parameters": call["arguments"]}) for call in flat
    )
    listed = {"from": "function_call", "value": written(flat)}
    parts = [{"type": "text", "text": before}]
    parts += [{"type": "tool_use", "name": call["name"], "input": call["arguments"]} for call in flat]
    rows: list[tuple[dict, str]] = [
        ({"messages": [{"role": "assistant", "content": before, "tool_calls": flat}]}, before),
        (
            {"messages": [{"role": "assistant", "content": before, "tool_calls": [{"function": c} for c in flat]}]},
            before,
        ),
        ({"messages": [{"role": "assistant", "content": parts}]}, before),
        ({"messages": [{"role": "assistant", "content": f"{before}\n{hermes}"}]}, before),
        ({"messages": [{"role": "assistant", "content": f"{before}\n{mistral}"}], "tools": [{"name": "x"}]}, before),
        ({"messages": [{"role": "assistant", "content": f"{before}\n{llama}"}]}, before),
        ({"conversations": [listed]}, ""),
        ({"query": "?", "tools": [{"name": "x"}], "answers": flat}, ""),
    ]
    for row, content in rows:
        message = convert(row)[1][-1]
        identify([message], None, as_json([message], None))
        assert message[1] == content
        for (name, arguments), (_, found, text) in zip(calls, message[3], strict=True):
            assert found == name
            assert repr(json.loads(text)) == repr(arguments)
            assert not as_text or text == written(arguments)


@given(CALLS)
def test_glaives_single_quotes_keep_the_text_of_arguments(calls: list[tuple[str, dict]]) -> None:
    texts = [(name, json.dumps(arguments)) for name, arguments in calls]
    written = "".join(f'<functioncall> {{"name": "{name}", "arguments": \'{text}\'}} ' for name, text in texts)
    expected = tuple((None, name, text) for name, text in texts)
    assert text_calls(f"{written}<|endoftext|>", "x") == ("", expected)


@given(st.lists(ARGUMENTS.map(lambda arguments: {"name": "a", "parameters": arguments}), min_size=1, max_size=3))
def test_tools_come_back_from_every_way_to_write_them(tools: list[dict]) -> None:
    one_a_line = "\n".join(map(json.dumps, tools))
    qwen = QWEN_SYSTEM.split("<tools>\n")[0] + f"<tools>\n{one_a_line}\n</tools>" + QWEN_SYSTEM.split("</tools>")[-1]
    hermes = HERMES_SYSTEM.split("For each")[0] % json.dumps(tools)[1:-1] + HERMES_TAIL
    for system in (qwen, hermes, GLAIVE_SYSTEM + one_a_line):
        found = converted(("system", system), ("assistant", "Hi"))[1]
        assert found is not None
        assert repr(json.loads(found)) == repr(tools)
        assert tools_text(found) == found


def test_a_dialogue_that_qwen3s_template_wrote_comes_back_with_all_its_parts() -> None:
    call = {"type": "function", "function": {"name": "area", "arguments": {"side": 1.0}}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Area?"},
        {
            "role": "assistant",
            "content": "Let me see.",
            "reasoning_content": "A square.\n\nSo.",
            "tool_calls": [call, call],
        },
        {"role": "tool", "content": "1.0"},
        {"role": "tool", "content": "1.0"},
        {"role": "assistant", "content": "It is 1.", "reasoning_content": "Fine."},
    ]
    tools = [{"type": "function", "function": {"name": "area", "ratio": 1.0}}]
    template = (files("trl") / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
    texts, _ = render_jinja_template(conversations=[messages], tools=tools, chat_template=template)
    _, found, found_tools = convert({"text": texts[0]})
    assert found == [
        ("system", "Be brief."),
        ("user", "Area?"),
        ("assistant", "Let me see.", "A square.\n\nSo.", AREA * 2),
        ("tool", "1.0"),
        ("tool", "1.0"),
        ("assistant", "It is 1.", "Fine."),
    ]
    assert found_tools == json.dumps(tools)
