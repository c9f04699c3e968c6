"""Mapping files: what each key of a shape does, and one error for each mistake."""

from pathlib import Path

import pytest

from dataprep.stages.normalize.branches import parts_of
from dataprep.stages.normalize.convert import convert_as, format_of
from dataprep.stages.normalize.mapping import keys_of, read_mapping, shape_of
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.normalize.settings import Settings
from schemas.errors import InputError

HELLO = [("user", "Hello"), ("assistant", "Hi")]
SYSTEM = ("system", "Be kind.")
TOY = '[[shape]]\nname = "toy"\nuser = "toy_input"\nassistant = "toy_output"\n'
VISITS = '[[shape]]\nname = "visits"\nturns = "visit.log"\nrole = "who"\ntext = "said.words"\n'
VISITS += 'roles = { visitor = "user", guide = "assistant" }\n'


@pytest.fixture
def read(tmp_path: Path):
    """Read one row by a mapping file's text: its format, messages and tools, of each conversation."""

    def conversations(mapping: str, row: object, **more: str) -> list[tuple]:
        path = tmp_path / "shapes.toml"
        path.write_text(mapping, encoding="utf-8")
        settings = Settings(shapes=read_mapping(path), **more)  # type: ignore[arg-type]
        name, parts = parts_of(row, settings)
        assert format_of(row, settings) == name
        return [(name, *convert_as(part, name, settings)) for part in parts]

    return conversations


def test_a_question_and_its_answer_by_their_keys(read) -> None:
    assert read(TOY, {"toy_input": "Hello", "toy_output": "Hi", "text": "x"}) == [("toy", HELLO, None)]


def test_the_system_text_stands_under_a_key_or_in_the_file(read) -> None:
    row = {"toy_input": "Hello", "toy_output": "Hi", "meta": {"system": "Be kind."}}
    assert read(TOY + 'system = "meta.system"', row)[0][1] == [SYSTEM, *HELLO]
    assert read(TOY + 'system = { text = "Be kind." }', row)[0][1] == [SYSTEM, *HELLO]
    assert read(TOY + 'system = "missing"', row)[0][1] == HELLO


def test_texts_under_several_keys_are_joined_by_newlines(read) -> None:
    mapping = '[[shape]]\nname = "post"\nuser = ["title", "body"]\nassistant = "reply.text"\n'
    row = {"title": "Rain", "body": "Why?", "reply": {"text": "Hi"}}
    assert read(mapping, row)[0][1] == [("user", "Rain\nWhy?"), ("assistant", "Hi")]
    assert read(mapping, row | {"body": ""})[0][1] == [("user", "Rain"), ("assistant", "Hi")]


def test_a_template_makes_a_question_of_columns(read) -> None:
    mapping = '[[shape]]\nname = "sum"\ntemplate = "Sum up {{it}}: {page.title} ({year})"\nassistant = "summary"\n'
    row = {"page": {"title": "Rain"}, "year": 1999, "summary": "Hi"}
    assert read(mapping, row)[0][1] == [("user", "Sum up {it}: Rain (1999)"), ("assistant", "Hi")]


def test_history_reasoning_and_tools(read) -> None:
    mapping = TOY + 'history = "before"\nreasoning = "why"\ntools = "fns"\n'
    row = {
        "toy_input": "Bye",
        "toy_output": "So long",
        "before": [["Hello", "Hi"]],
        "why": "2",
        "fns": '[{"name": "f"}]',
    }
    expected = [*HELLO, ("user", "Bye"), ("assistant", "So long", "2")]
    assert read(mapping, row) == [("toy", expected, '[{"name": "f"}]')]


def test_a_list_of_turns_by_its_keys(read) -> None:
    log = [{"who": "visitor", "said": {"words": "Hello"}}, {"who": "guide", "said": {"words": "Hi"}, "weight": 0}]
    row = {"visit": {"log": log}}
    assert read(VISITS, row) == [("visits", [HELLO[0], (*HELLO[1], None, None, None, None, False)], None)]


def test_calls_in_mapped_turns_are_kept(read) -> None:
    mapping = '[[shape]]\nname = "x"\nturns = "log"\nrole = "who"\ntext = "words"\nreasoning = "why"\ntools = "fns"\n'
    call = {"function": {"name": "f", "arguments": "{}"}}
    row = {
        "log": [{"who": "assistant", "words": None, "why": "as asked", "tool_calls": [call]}],
        "fns": [{"name": "f"}],
    }
    expected = [("assistant", "", "as asked", ((None, "f", "{}"),))]
    assert read(mapping, row) == [("x", expected, '[{"name":"f"}]')]


def test_roles_by_position(read) -> None:
    mapping = '[[shape]]\nname = "lines"\nturns = "lines"\norder = ["user", "assistant"]\n'
    assert read(mapping, {"lines": ["Hello", "Hi"]})[0][1] == HELLO
    assert read(mapping + 'text = "said"', {"lines": [{"said": "Hello"}, {"said": "Hi"}]})[0][1] == HELLO
    with pytest.raises(TurnedAway, match="turn 1 of lines is an object, expected a string"):
        read(mapping, {"lines": [{"said": "Hello"}]})


def test_turns_that_are_pairs(read) -> None:
    mapping = '[[shape]]\nname = "toys"\nturns = "messages"\nuser = "toy_input"\nassistant = "toy_output"\n'
    turns = [{"toy_input": "Hello", "toy_output": "Hi"}, {"toy_input": "Bye"}]
    assert read(mapping, {"messages": turns})[0][1] == [*HELLO, ("user", "Bye")]
    assert read(mapping, {"messages": turns[::-1]})[0][1] == [("user", "Bye"), ("assistant", ""), *HELLO]


def test_a_format_by_renamed_keys(read) -> None:
    mapping = '[[shape]]\nname = "mine"\nformat = "alpaca"\nrename = { task = "instruction", "a.b" = "output" }\n'
    row = {"task": "Hello", "a": {"b": "Hi"}, "instruction": "not this"}
    assert read(mapping, row) == [("mine", HELLO, None)]
    assert read(mapping + 'system = { text = "Be kind." }', row)[0][1] == [SYSTEM, *HELLO]


def test_renamed_keys_may_change_places_and_hold_what_other_rows_of_the_format_hold(read) -> None:
    swapped = '[[shape]]\nname = "x"\nformat = "alpaca"\nrename = { output = "instruction", instruction = "output" }\n'
    assert read(swapped, {"instruction": "Hi", "output": "Hello"})[0][1] == HELLO
    cell = '[[shape]]\nname = "x"\nformat = "openai"\nrename = { talk = "messages" }\n'
    row = {"talk": '[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]'}
    assert read(cell, row) == [("x", HELLO, None)]


def test_a_renamed_preference_has_its_sides(read) -> None:
    mapping = '[[shape]]\nname = "votes"\nformat = "preference"\n'
    mapping += 'rename = { asked = "prompt", up = "chosen", down = "rejected" }\n'
    row = {"asked": "Hello", "up": [{"role": "assistant", "content": "Hi"}]}
    row |= {"down": [{"role": "assistant", "content": "No"}]}
    rejected = [("user", "Hello"), ("assistant", "No")]
    assert read(mapping, row, preference="both") == [("votes", HELLO, None), ("votes", rejected, None)]


def test_the_first_shape_whose_keys_are_there_counts_and_other_rows_are_found_out(read) -> None:
    mapping = TOY + VISITS + '[[shape]]\nname = "last"\nwhen = ["kind.toy"]\nuser = "q"\nassistant = "a"\n'
    assert read(mapping, {"kind": {"toy": None}, "q": "Hello", "a": "Hi"}) == [("last", HELLO, None)]
    assert read(mapping, {"prompt": "Hello", "response": "Hi"}) == [("prompt-response", HELLO, None)]
    assert (
        read(mapping, [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}])[0][0] == "openai"
    )
    assert read(mapping, {"toy_input": "Hello", "toy_output": "Hi"}, format="text")[0][0] == "toy"


@pytest.mark.parametrize(
    ("mapping", "row", "reason"),
    [
        (TOY, {"toy_input": 5, "toy_output": "Hi"}, "non-text-content"),
        (VISITS, {"visit": {"log": []}}, "no-messages"),
        (VISITS, {"visit": {"log": [{"who": "stranger", "said": {"words": "Hello"}}]}}, "unknown-role"),
        (VISITS, {"visit": {"log": ["Hello"]}}, "bad-message"),
        (VISITS, {"visit": {"log": [{"who": "visitor", "said": {"words": "Hello"}}]}}, "no-assistant-turn"),
        (TOY + 'tools = "fns"', {"toy_input": "Hello", "toy_output": "Hi", "fns": "x"}, "bad-tools"),
    ],
)
def test_mapped_rows_go_through_the_checks_of_all_rows(read, mapping: str, row: dict, reason: str) -> None:
    with pytest.raises(TurnedAway) as caught:
        read(mapping, row)
    assert caught.value.reason == reason


def test_the_columns_that_shapes_need(tmp_path: Path) -> None:
    path = tmp_path / "shapes.toml"
    path.write_text(TOY + 'system = "meta.system"\n' + VISITS, encoding="utf-8")
    shapes = read_mapping(path)
    assert set(keys_of(shapes)) == {"toy_input", "toy_output", "meta.system", "meta", "visit.log", "visit"}
    assert shape_of(["Hello"], shapes) is None


MISTAKES = [
    ("shape = ", "not TOML: Invalid value (at end of document)"),
    ("", "shape: missing or no list; write each shape under [[shape]]"),
    ("shape = []", "no shape; write one as [[shape]]"),
    ('[shape]\nname = "x"', "shape: missing or no list; write each shape under [[shape]]"),
    ('[[shapes]]\nname = "x"', "shapes: no such key; expected shapes, each written under [[shape]]"),
    ('[[shape]]\nuser = "q"\nassistant = "a"', "shape 1: name: missing; expected a name of its own, as text"),
    (TOY + 'rolle = "who"', "shape 'toy': rolle: no such key; expected one of name, when, user, assistant, template,"),
    (TOY + "tools = 5", "shape 'toy': tools: expected a key"),
    (TOY + "system = 5", "shape 'toy': system: expected a key, or {text = \"…\"}"),
    (TOY + 'system = { words = "x" }', "shape 'toy': system: expected a key, or {text = \"…\"}"),
    (
        VISITS.replace('"user"', '"users"'),
        "shape 'visits': roles: expected a table such as {visitor = \"user\"}; the roles",
    ),
    (TOY + TOY, "shape 'toy': name: another shape has it already; give each its own"),
    (TOY.replace('"toy"', '"alpaca"'), "shape 'alpaca': name: 'alpaca' is no name of its own; expected one that is no"),
    ('[[shape]]\nname = "x"', "shape 'x': how is a row read? expected user (or template) and assistant, or turns, or"),
    ('[[shape]]\nname = "x"\nuser = "q"', "shape 'x': assistant: missing; expected a key, or a list of keys"),
    (
        TOY + 'template = "{q}"',
        "shape 'toy': template: the question is given by user already; expected user or template",
    ),
    (TOY + 'order = ["user"]', "shape 'toy': order: means nothing beside assistant, user; leave it out"),
    ('[[shape]]\nname = "x"\nturns = "log"', "shape 'x': role: missing; expected a key of each turn, or order ="),
    ('[[shape]]\nname = "x"\nturns = "log"\nrole = "who"', "shape 'x': text: missing; expected a key of each turn"),
    (VISITS + 'order = ["user"]', "shape 'visits': order: roles are given by key already; expected role or order"),
    ('[[shape]]\nname = "x"\nturns = "log"\nuser = "q"', "shape 'x': assistant: missing; each turn needs user and"),
    (
        '[[shape]]\nname = "x"\nformat = "alpacca"',
        "shape 'x': format: 'alpacca' is none; expected one of openai, sharegpt",
    ),
    ('[[shape]]\nname = "x"\nformat = "alpaca"', "shape 'x': rename: missing; expected a table such as {their_key ="),
    (
        '[[shape]]\nname = "x"\ntemplate = "{}"\nassistant = "a"',
        "shape 'x': template: holds {} without a key; expected a",
    ),
    (TOY + "when = []", "shape 'toy': when: empty; expected a list of keys such as"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_is_named_with_its_file_its_shape_and_what_is_expected(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "shapes.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError) as caught:
        read_mapping(path)
    assert str(caught.value).startswith(f"--mapping {path}: {message}")
    assert "\n" not in str(caught.value)


def test_a_mapping_file_must_be_there_and_be_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"shapes.toml: cannot be read: No such file or directory"):
        read_mapping(tmp_path / "shapes.toml")
    (tmp_path / "shapes.toml").write_bytes(b"\xff")
    with pytest.raises(InputError, match=r"shapes.toml: not UTF-8 text; save the file as UTF-8"):
        read_mapping(tmp_path / "shapes.toml")


def test_the_demo_rows_of_a_trainer_are_read_by_a_mapping(read, shared: Path) -> None:
    import json

    folder = shared / "data" / "xtuner"
    single = TOY + 'system = "toy_system"\n[[shape]]\nname = "page"\nformat = "text"\nrename = { toy_text = "text" }\n'
    multi = '[[shape]]\nname = "toys"\nturns = "messages"\nuser = "toy_input"\nassistant = "toy_output"\n'
    for file, mapping, roles in (
        ("single_turn.json", single, ["system", "user", "assistant"]),
        ("pretrain.json", single, ["text"]),
        ("multi_turn_1.json", multi + 'system = "messages.0.toy_system"', ["system", *["user", "assistant"] * 2]),
    ):
        for row in json.loads((folder / file).read_text(encoding="utf-8")):
            ((_, messages, _),) = read(mapping, row)
            assert [message[0] for message in messages] == roles


def test_a_list_whose_turns_have_none_of_the_named_keys_is_of_another_shape(read) -> None:
    toy_turns = '[[shape]]\nname = "toy turns"\nturns = "messages"\nuser = "toy_input"\nassistant = "toy_output"\n'
    plain = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]}
    assert read(toy_turns, plain) == [("openai", HELLO, None)]
    assert read(toy_turns, {"messages": [{"toy_input": "Hello", "toy_output": "Hi"}]}) == [("toy turns", HELLO, None)]
