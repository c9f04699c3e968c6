"""Each format: literal rows in, literal messages out."""

import json

import pytest
from rows import convert

from dataprep.stages.normalize.convert import FORMATS, detect_format, role_names
from dataprep.stages.normalize.examples import EXAMPLES
from dataprep.stages.normalize.message import as_json, identify
from dataprep.stages.normalize.reasons import TurnedAway
from schemas.errors import InputError

HELLO = [("user", "Hello"), ("assistant", "Hi")]


def converted(row: object, format_name: str | None = None, **roles: str) -> tuple:
    return convert(row, format_name, role_names(roles))


def test_openai_messages() -> None:
    row = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]}
    assert converted(row) == ("openai", HELLO, None)


def test_a_bare_list_of_messages_is_a_row() -> None:
    assert converted([{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}])[:2] == (
        "openai",
        HELLO,
    )


def test_developer_messages_are_system_messages() -> None:
    row = {"messages": [{"role": "developer", "content": "Be brief."}, {"role": "assistant", "content": "Hi"}]}
    assert converted(row)[1] == [("system", "Be brief."), ("assistant", "Hi")]


def test_openai_tool_calls_keep_ids_names_and_the_source_text_of_arguments() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "area", "arguments": '{"side":  1.0}'}}
    row = {
        "messages": [
            {"role": "user", "content": "Area?", "name": "ann"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "1.0", "tool_call_id": "c1", "name": "area"},
            {"role": "assistant", "content": "It is 1."},
        ],
        "tools": [{"type": "function", "function": {"name": "area", "parameters": {}}}],
    }
    _, messages, tools = converted(row)
    assert messages == [
        ("user", "Area?", None, None, "ann"),
        ("assistant", "", None, (("c1", "area", '{"side":  1.0}'),)),
        ("tool", "1.0", None, None, "area", "c1"),
        ("assistant", "It is 1."),
    ]
    assert tools == '[{"type":"function","function":{"name":"area","parameters":{}}}]'


def test_arguments_given_as_an_object_become_json_text_with_numbers_intact() -> None:
    arguments = {"city": "北京", "ratio": 1.0, "id": 123456789012345678901234567890}
    call = {"name": "find", "arguments": arguments}
    row = {"messages": [{"role": "assistant", "tool_calls": [call]}]}
    expected = '{"city":"北京","ratio":1.0,"id":123456789012345678901234567890}'
    assert converted(row)[1] == [("assistant", "", None, ((None, "find", expected),))]


def test_the_older_function_call_is_a_tool_call() -> None:
    row = {
        "messages": [
            {"role": "assistant", "content": None, "function_call": {"name": "now", "arguments": "{}"}},
            {"role": "function", "name": "now", "content": "noon"},
        ],
        "functions": [{"name": "now"}],
    }
    assert converted(row) == (
        "openai",
        [("assistant", "", None, ((None, "now", "{}"),)), ("tool", "noon", None, None, "now")],
        '[{"name":"now"}]',
    )


def test_reasoning_is_kept_apart() -> None:
    row = {"messages": [{"role": "assistant", "content": "4", "reasoning_content": "2 + 2"}]}
    assert converted(row)[1] == [("assistant", "4", "2 + 2")]


@pytest.mark.parametrize(
    ("flag", "train"),
    [
        ({"weight": 0}, False),
        ({"weight": 1}, True),
        ({"train": False}, False),
        ({"loss": True}, True),
        ({"training": False}, False),
    ],
)
def test_a_message_may_say_whether_it_is_trained_on(flag: dict[str, object], train: bool) -> None:
    row = {"messages": [{"role": "assistant", "content": "Hi", **flag}]}
    assert converted(row)[1] == [("assistant", "Hi", None, None, None, None, train)]


def test_text_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    row = {"messages": [{"role": "user", "content": parts}, {"role": "assistant", "content": "Hi"}]}
    assert converted(row)[1] == HELLO


def test_sharegpt_with_system_and_tools() -> None:
    row = {
        "conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}],
        "system": "Be brief.",
        "tools": '[{"name": "area"}]',
    }
    assert converted(row) == ("sharegpt", [("system", "Be brief."), *HELLO], '[{"name": "area"}]')


def test_a_system_text_that_also_stands_first_is_not_doubled() -> None:
    turns = [{"from": "system", "value": "Be brief."}, {"from": "gpt", "value": "Hi"}]
    assert converted({"conversations": turns, "system": "Be brief."})[1] == [
        ("system", "Be brief."),
        ("assistant", "Hi"),
    ]


def test_sharegpt_function_calls_are_messages_of_their_own() -> None:
    row = {
        "conversations": [
            {"from": "human", "value": "Area?"},
            {"from": "gpt", "value": "Let me see."},
            {"from": "function_call", "value": '{"name": "area", "arguments": {"side": 1.0, "unit": "米"}}'},
            {"from": "observation", "value": '{"area": 1.0}'},
            {"from": "gpt", "value": "It is 1."},
        ],
        "tools": "[]",
    }
    assert converted(row) == (
        "sharegpt",
        [
            ("user", "Area?"),
            ("assistant", "Let me see."),
            ("assistant", "", None, ((None, "area", '{"side":1.0,"unit":"米"}'),)),
            ("tool", '{"area": 1.0}'),
            ("assistant", "It is 1."),
        ],
        None,
    )


def test_sharegpt_may_call_several_functions_at_once() -> None:
    value = '[{"name": "a", "arguments": "{\\"x\\": 1}"}, {"name": "b", "arguments": {"n": 12345678901234567890123}}]'
    row = {"conversations": [{"from": "function_call", "value": value}]}
    calls = ((None, "a", '{"x": 1}'), (None, "b", '{"n":12345678901234567890123}'))
    assert converted(row)[1] == [("assistant", "", None, calls)]


def test_human_assistant_pairs() -> None:
    row = {"conversation_id": 1, "conversation": [{"human": "Hello", "assistant": "Hi"}], "dataset": "x"}
    assert converted(row) == ("turn-pairs", HELLO, None)


def test_system_input_output_pairs() -> None:
    row = {
        "conversation": [{"system": "Be brief.", "input": "Hello", "output": "Hi"}, {"input": "Bye", "output": "Bye"}]
    }
    assert converted(row)[1] == [("system", "Be brief."), *HELLO, ("user", "Bye"), ("assistant", "Bye")]


def test_a_last_pair_without_an_answer_ends_the_dialogue_with_the_user() -> None:
    row = {"conversation": [{"human": "Hello", "assistant": "Hi"}, {"human": "Thanks", "assistant": ""}]}
    assert converted(row)[1] == [*HELLO, ("user", "Thanks")]


def test_alpaca_joins_instruction_and_input_by_a_newline() -> None:
    row = {"instruction": "Translate.", "input": "你好", "output": "Hello"}
    assert converted(row) == ("alpaca", [("user", "Translate.\n你好"), ("assistant", "Hello")], None)


def test_alpaca_with_system_and_history() -> None:
    row = {
        "system": "Be brief.",
        "history": [["Hello", "Hi"]],
        "instruction": "Bye",
        "input": "",
        "output": "So long",
    }
    assert converted(row)[1] == [("system", "Be brief."), *HELLO, ("user", "Bye"), ("assistant", "So long")]


@pytest.mark.parametrize("key", ["prompt", "query"])
def test_prompt_and_response_with_history(key: str) -> None:
    row = {key: "Bye", "response": "So long", "history": [["Hello", "Hi"]], "system": "Be brief."}
    assert converted(row) == (
        "prompt-response",
        [("system", "Be brief."), *HELLO, ("user", "Bye"), ("assistant", "So long")],
        None,
    )


def test_prompt_and_chosen_take_the_space_after_a_mark_as_part_of_the_mark() -> None:
    row = {
        "prompt": "\n\nHuman: Hello \n\nAssistant:Hi\n\nHuman:  Bye\n\nAssistant:",
        "response": " So long",
        "chosen": " So long\n",
        "rejected": " No",
    }
    assert converted(row) == (
        "hh",
        [("user", "Hello "), ("assistant", "Hi"), ("user", " Bye"), ("assistant", "So long\n")],
        None,
    )


def test_chosen_alone_may_hold_the_whole_dialogue() -> None:
    assert converted({"chosen": "\n\nHuman: Hello\n\nAssistant: Hi", "rejected": "x"})[:2] == ("hh", HELLO)


def test_plain_text_is_one_message_of_role_text() -> None:
    assert converted({"text": " A page.\n", "url": "x"}) == ("text", [("text", " A page.\n")], None)


def test_text_is_never_stripped() -> None:
    row = {"messages": [{"role": "user", "content": "\n a "}, {"role": "assistant", "content": " b\r\n"}]}
    assert converted(row)[1] == [("user", "\n a "), ("assistant", " b\r\n")]


def test_turns_out_of_order_and_a_trailing_question_are_kept_as_they_are() -> None:
    turns = [{"from": "gpt", "value": "Hi"}, {"from": "gpt", "value": "Hello?"}, {"from": "human", "value": "Yes"}]
    assert converted({"conversations": turns})[1] == [("assistant", "Hi"), ("assistant", "Hello?"), ("user", "Yes")]


def test_further_role_names_can_be_mapped() -> None:
    row = {"dialogue": [{"role": "client", "content": "Hello"}, {"role": "counselor", "content": "Hi"}]}
    assert converted(row, client="user", counselor="assistant")[:2] == ("openai", HELLO)


@pytest.mark.parametrize("role_key", ["speaker", "author", "role", "from"])
@pytest.mark.parametrize("text_key", ["text", "utterance", "message"])
@pytest.mark.parametrize("list_key", ["messages", "conversations", "dialogue", "dialog", "turns", "data"])
def test_turns_under_other_names(role_key: str, text_key: str, list_key: str) -> None:
    row = {list_key: [{role_key: "user", text_key: "Hello"}, {role_key: "assistant", text_key: "Hi"}], "system": "Be."}
    assert converted(row) == ("turns", [("system", "Be."), *HELLO], None)


@pytest.mark.parametrize(("role_key", "text_key"), [("role", "value"), ("from", "content")])
def test_mixed_names_of_openai_and_sharegpt_are_turns(role_key: str, text_key: str) -> None:
    row = {"conversations": [{role_key: "user", text_key: "Hello"}, {role_key: "assistant", text_key: "Hi"}]}
    assert converted(row)[:2] == ("turns", HELLO)


@pytest.mark.parametrize("key", ["dialog", "turns", "data"])
def test_openai_messages_may_stand_under_other_keys(key: str) -> None:
    row = {key: [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}], "text": "rendered"}
    assert converted(row)[:2] == ("openai", HELLO)


def test_a_key_of_another_meaning_is_no_list_of_turns() -> None:
    assert detect_format({"turns": 2, "data": [{"id": 1}], "text": "A page."}) == "text"
    row = {"turns": 2, "data": [{"speaker": "user", "text": "Hello"}, {"speaker": "assistant", "text": "Hi"}]}
    assert converted(row)[:2] == ("turns", HELLO)


@pytest.mark.parametrize("key", ["messages", "conversations", "conversation", "dialogue", "dialog", "data"])
def test_a_list_of_strings_alternates_beginning_with_the_user(key: str) -> None:
    row = {"id": "0", key: ["Hello", "Hi", "Thanks"], "system": "Be brief."}
    assert converted(row) == ("alternating", [("system", "Be brief."), *HELLO, ("user", "Thanks")], None)


def test_turns_of_strings_are_questions_only_unless_the_format_is_named() -> None:
    with pytest.raises(TurnedAway, match="no known format has these keys: question_id, turns"):
        detect_format({"question_id": 81, "turns": ["Hello", "Again"]})
    assert converted({"turns": ["Hello", "Hi"]}, "alternating")[1] == HELLO
    assert converted(["Hello", "Hi"], "alternating")[1] == HELLO


def said(*names: str) -> dict:
    return {"dialogue": [{"role": name, "content": name} for name in names]}


@pytest.mark.parametrize(
    "pair",
    [
        *[("client", "counselor"), ("Client", "Counselor"), ("patient", "doctor"), ("customer", "agent")],
        *[("来访者", "咨询师"), ("求助者", "支持者"), ("患者", "医生"), ("问", "答"), ("user", "bot"), ("user", "ai")],
        *[("User", "Assistant"), ("USER", "bot")],
    ],
)
def test_an_everyday_pair_of_roles_needs_no_role_option(pair: tuple[str, str]) -> None:
    assert converted(said(*pair))[1] == [("user", pair[0]), ("assistant", pair[1])]
    assert converted(said("system", pair[1], *pair))[1] == [
        ("system", "system"),
        ("assistant", pair[1]),
        ("user", pair[0]),
        ("assistant", pair[1]),
    ]


def test_pairs_are_understood_in_messages_of_further_fields_too() -> None:
    row = [{"role": "client", "content": "Hello", "note": "x"}, {"role": "counselor", "content": "Hi", "note": "y"}]
    assert converted(row)[1] == HELLO


@pytest.mark.parametrize(
    "names", [("client", "doctor"), ("client",), ("client", "counselor", "user"), ("agent", "doctor"), ("bot",)]
)
def test_names_that_are_no_whole_pair_stay_unknown(names: tuple[str, ...]) -> None:
    with pytest.raises(TurnedAway) as caught:
        converted(said(*names))
    assert caught.value.reason == "unknown-role"


def test_the_role_option_goes_before_a_pair() -> None:
    swapped = converted(said("customer", "agent"), agent="user", customer="assistant")
    assert swapped[1] == [("assistant", "customer"), ("user", "agent")]
    assert converted(said("customer", "agent"), agent="assistant")[1] == [("user", "customer"), ("assistant", "agent")]
    with pytest.raises(TurnedAway, match="message 1 has role 'customer'"):
        converted(said("customer", "agent"), agent="user")
    with pytest.raises(TurnedAway, match="message 1 has role 'Customer'"):
        converted(said("Customer", "Agent"), agent="user")


@pytest.mark.parametrize(
    "content",
    [[{"type": "text", "value": "Hello"}], [{"type": "text", "text": "Hello"}], {"type": "text", "text": "Hello"}],
)
def test_a_text_may_be_typed(content: object) -> None:
    assert (
        converted({"messages": [{"role": "user", "content": content}, {"role": "assistant", "content": "Hi"}]})[1]
        == HELLO
    )


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_has_an_example_that_is_read_as_that_format(name: str) -> None:
    expected = {
        "text": [("text", "A page.")],
        "xlam": [("user", "What time is it?"), ("assistant", "", None, ((None, "now", "{}"),))],
    }
    found = converted(json.loads(EXAMPLES[name]))
    assert found[:2] == (name, expected.get(name, HELLO))
    assert found[2] == ('[{"name":"now"}]' if name == "xlam" else None)


def test_there_is_an_example_of_nothing_else() -> None:
    assert list(EXAMPLES) == list(FORMATS)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"messages": [{"from": "human", "value": "x"}]}, "sharegpt"),
        ({"conversations": [{"role": "user", "content": "x"}]}, "openai"),
        ({"messages": [{"role": "user", "content": "x"}], "conversations": [{"from": "gpt", "value": "y"}]}, "openai"),
        ({"messages": None, "text": "x"}, "text"),
        ({"instruction": "x", "output": "y", "text": "z"}, "alpaca"),
        ({"prompt": "x", "response": "y", "chosen": "z"}, "prompt-response"),
        ({"prompt": "x", "response": "y", "chosen": "\n\nHuman: z"}, "hh"),
        ({"prompt": "x", "response": "y", "text": "z"}, "prompt-response"),
        ({"prompt": {"text": "x", "replies": []}, "text": "z"}, "oasst"),
        ({"prompt": "x", "response": "y", "question": "z", "answer": "w"}, "prompt-response"),
        ({"input": ["x"], "output": ["y"], "data": ["z", "w"]}, "alternating"),
        ({"question": "x", "answer": "y", "text": "z"}, "question-answer"),
        ({"question": "x", "answer": "y", "dialog": [{"role": "user", "content": "x"}]}, "openai"),
        ({"title": "x", "answer": None, "text": "z"}, "text"),
        ({"data": ["x", "y"], "text": "z"}, "text"),
        ({"messages": [{"role": "user", "content": "x"}], "chosen": {"role": "assistant"}}, "preference"),
    ],
)
def test_rows_that_fit_several_formats_follow_one_precedence(row: dict, name: str) -> None:
    assert detect_format(row) == name


def test_a_forced_format_overrides_the_precedence() -> None:
    row = {"messages": [{"role": "assistant", "content": "x"}], "text": "a page"}
    assert converted(row, "text") == ("text", [("text", "a page")], None)


def test_a_role_can_only_be_mapped_to_one_that_exists() -> None:
    with pytest.raises(InputError, match="--role bot=robot: no such role; use one of user, assistant, system, tool"):
        role_names({"bot": "robot"})


def test_equal_content_has_an_equal_id_and_the_id_is_that_of_the_spec() -> None:
    from hashlib import blake2b

    text = '[[["user","Hello"],["assistant","Hi"]],null]'
    assert as_json(HELLO, None) == text.encode()
    assert identify(HELLO, None, text.encode()) == blake2b(text.encode()).hexdigest()[:32]
