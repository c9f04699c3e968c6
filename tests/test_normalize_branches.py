"""Rows that hold more than one conversation: preferences, compared answers, trees nested and flat."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.stages.normalize.branches import parts_of
from dataprep.stages.normalize.convert import KEYS, convert_as
from dataprep.stages.normalize.formats.flat_trees import holds_flat_trees, trees_of_rows
from dataprep.stages.normalize.reasons import FIXES, TurnedAway
from dataprep.stages.normalize.settings import Settings

USER, GOOD, BAD = (
    {"role": "user", "content": "Hello"},
    {"role": "assistant", "content": "Hi"},
    {"role": "assistant", "content": "No"},
)
CHOSEN, REJECTED = [("user", "Hello"), ("assistant", "Hi")], [("user", "Hello"), ("assistant", "No")]


def read(row: object, **settings: str) -> list[list[tuple]]:
    settled = Settings(**settings)  # type: ignore[arg-type]
    name, parts = parts_of(row, settled)
    assert isinstance(row, dict)
    in_a_table = dict.fromkeys(KEYS) | {key: row[key] for key in KEYS if key in row}
    assert [len(found) for found in parts_of(in_a_table, settled)] == [len(name), len(parts)]
    return [convert_as(part, name, settled)[0] for part in parts]


def turned_away(row: object, **settings: str) -> tuple[str, str]:
    with pytest.raises(TurnedAway) as caught:
        read(row, **settings)
    return caught.value.reason, caught.value.detail


PREFERENCES: list[dict] = [
    {"prompt": "Hello", "chosen": "Hi", "rejected": "No"},
    {"instruction": "Hello", "input": "", "output": "Hi", "chosen": "Hi", "rejected": "No"},
    {"prompt": "Hello", "response": "Hi", "chosen": "Hi", "rejected": "No"},
    {"prompt": "Hello", "chosen": [GOOD], "rejected": [BAD]},
    {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    {"prompt": "Hello", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
    {"prompt": "Hello", "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD]},
    {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    {"conversations": [{"from": "human", "value": "Hello"}], "chosen": {"from": "gpt", "value": "Hi"}}
    | {"rejected": {"from": "gpt", "value": "No"}},
    {"messages": [USER], "chosen": "Hi", "rejected": "No"},
    {"messages": [USER, GOOD], "chosen": "Hi", "rejected": "No"},
    {"conversations": [{"from": "human", "value": "Hello"}], "chosen": "Hi", "rejected": "No"},
    {"prompt": [USER], "chosen": "Hi", "rejected": "No"},
    {"prompt": "Hello", "chosen": {"text": "Hi"}, "rejected": {"text": "No"}},
    {"prompt": "Hello", "chosen": {"content": "Hi"}, "rejected": {"content": "No"}},
    {"chosen": "\n\nHuman: Hello\n\nAssistant: Hi", "rejected": "\n\nHuman: Hello\n\nAssistant: No"},
    {"prompt": "\n\nHuman: Hello\n\nAssistant:", "response": " Hi", "chosen": " Hi", "rejected": " No"},
    {"prompt": "Hello", "chosen": json.dumps([USER, GOOD]), "rejected": json.dumps([USER, BAD])},
    {"messages": [USER, GOOD], "rejected_response": "No"},
    {"messages": [USER, GOOD], "rejected_messages": [USER, BAD]},
    {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
    {"question": "Hello", "response_j": "Hi", "response_k": "No"},
    {"prompt": "Hello", "chosen_response": "Hi", "rejected_response": "No"},
    {"prompt": "Hello", "response_0": "No", "response_1": "Hi", "better_response_id": 1, "safer_response_id": 0},
    {"prompt": "Hello", "response_0": "Hi", "response_1": "No", "safer_response_id": 0},
    {"instruction": "Hello", "input": "", "output_1": "No", "output_2": "Hi", "preference": 2},
    {"prompt": "Hello", "response_1": "Hi", "response_2": "No", "preference_strength": -2},
    {"context": [USER], "response1": "No", "response2": "Hi", "overall_preference": 3},
    {"history": "Hello", "human_ref_A": "No", "human_ref_B": "Hi", "labels": 0},
    {"question": {"full_text": "Hello"}, "answer_0": "No", "answer_1": "Hi", "score_0": -0.5, "score_1": 0.5},
    {"prompt": "Hello", "responses": ["No", "Hi"], "scores": [1, 9]},
    {"prompt": "Hello", "responses": ["No", "Hi"], "better_response_id": 1},
    {"instruction": "Hello"}
    | {"completions": [{"response": "No", "overall_score": 2.0}, {"response": "Hi", "overall_score": 9.5}]},
    {"instruction": "Hello", "generations": ["No", "Hi"], "ratings": [1.0, 5.0]},
    {"prompt": "\n\nHuman: Hello\n\nAssistant: "}
    | {"answers": [{"answer": "No", "rank": 7.0}, {"answer": "Hi", "rank": 1.0}]},
    {"question": "Hello"}
    | {"answers": [{"text": "No", "pm_score": 9, "selected": False}, {"text": "Hi", "pm_score": 2, "selected": True}]},
    {"conversation_a": [USER, BAD], "conversation_b": [USER, GOOD], "winner": "model_b"},
    {"conversation_a": json.dumps([USER, GOOD]), "conversation_b": json.dumps([USER, BAD]), "winner": "model_a"},
    {"prompt": '["Hello"]', "response_a": '["No"]', "response_b": '["Hi"]', "winner_model_a": 0, "winner_model_b": 1},
]


def test_what_is_no_row_is_turned_away() -> None:
    with pytest.raises(TurnedAway, match="the row is a number, expected an object"):
        parts_of(5, Settings())


@pytest.mark.parametrize("row", PREFERENCES)
def test_either_side_of_a_preference_is_a_conversation(row: dict) -> None:
    assert read(row) == [CHOSEN]
    assert read(row, preference="rejected") == [REJECTED]
    assert read(row, preference="both") == [CHOSEN, REJECTED]


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.floats() | st.sampled_from(["", "x", "[{", '[{"role": "user", "content": "x"}]', 2]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "text", "from", "rank", "messages"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.sampled_from(PREFERENCES), st.data(), ANYTHING, st.sampled_from(["chosen", "rejected", "both"]))
def test_a_damaged_preference_becomes_conversations_or_leaves_under_a_known_reason(
    row: dict, data: st.DataObject, value: object, preference: str
) -> None:
    damaged = row | {data.draw(st.sampled_from(sorted(row))): value}
    try:
        found = read(damaged, preference=preference)
    except TurnedAway as away:
        assert away.reason in FIXES
        return
    assert all(type(message[1]) is str for messages in found for message in messages)


def test_a_dialogue_before_the_preference_is_on_both_sides() -> None:
    before = [USER, GOOD, {"role": "user", "content": "Bye"}]
    row = {"messages": before, "chosen": {"role": "assistant", "content": "So long"}, "rejected": BAD}
    start = [*CHOSEN, ("user", "Bye")]
    assert read(row, preference="both") == [[*start, ("assistant", "So long")], [*start, ("assistant", "No")]]


@pytest.mark.parametrize("preference", ["chosen", "rejected", "both"])
@pytest.mark.parametrize(
    "row", [{"messages": [USER, GOOD]}, {"prompt": "Hello", "response": "Hi"}, {"messages": [USER, GOOD], "label": "x"}]
)
def test_rows_that_compare_nothing_are_read_whatever_was_asked_for(row: dict, preference: str) -> None:
    assert read(row, preference=preference) == [CHOSEN]


def test_a_chosen_answer_without_a_rejected_one_has_one_side() -> None:
    row = {"prompt": "Hello", "chosen": "Hi", "rejected": None}
    assert read(row) == read(row, preference="both") == [CHOSEN]
    assert turned_away(row, preference="rejected")[0] == "no-rejected-answer"


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, GOOD]},
        {"prompt": "Hello", "completion": "Hi"},
        {"prompt": [USER], "completion": [GOOD]},
    ],
)
def test_a_label_says_whether_the_one_answer_is_desired(row: dict) -> None:
    assert read(row | {"label": True}) == read(row | {"label": True}, preference="both") == [CHOSEN]
    assert read(row | {"label": False}, preference="rejected") == [CHOSEN]
    assert read(row | {"kto_tag": False}, preference="both") == [CHOSEN]
    detail = "the row's label is false: its answer is the undesired one"
    assert turned_away(row | {"label": False}) == ("undesired-answer", detail)
    assert turned_away(row | {"kto_tag": "false"}) == ("undesired-answer", detail)
    assert turned_away(row | {"label": True}, preference="rejected")[0] == "no-rejected-answer"


def test_on_a_tie_the_first_counts_and_two_bad_answers_are_turned_away() -> None:
    row = {"conversation_a": [USER, GOOD], "conversation_b": [USER, BAD], "winner": "tie"}
    assert read(row) == [CHOSEN]
    assert turned_away(row | {"winner": "tie (bothbad)"})[0] == "undesired-answer"
    assert turned_away(row | {"winner": "both_bad"})[0] == "undesired-answer"


def test_answers_that_nobody_compared_are_not_chosen_from() -> None:
    assert turned_away({"prompt": "Hello", "responses": ["Hi", "No"]})[0] == "unknown-format"
    assert turned_away({"prompt": "Hello", "response_0": "Hi", "response_1": "No"})[0] == "unknown-format"


def reply(text: str, *replies: dict, **more: object) -> dict:
    return {"text": text, "role": "assistant", "replies": list(replies), **more}


def follow_up(text: str, *replies: dict, **more: object) -> dict:
    return reply(text, *replies, **more) | {"role": "prompter"}


TREE = {
    "prompt": follow_up(
        "Q",
        reply("worse", follow_up("why", reply("so")), rank=1),
        reply("best", follow_up("one", reply("first"), reply("second", rank=0)), follow_up("two"), rank=0),
    )
}


def test_the_paths_of_a_tree() -> None:
    texts = {
        paths: [[text for _, text in messages] for messages in read(TREE, paths=paths)]
        for paths in ("best", "top", "all")
    }
    assert texts["best"] == [["Q", "best", "one", "second"]]
    assert texts["top"] == [["Q", "best", "one", "second"]]
    assert texts["all"] == [["Q", "worse", "why", "so"], ["Q", "best", "one", "first"], ["Q", "best", "one", "second"]]


def test_top_follows_every_question_and_only_the_best_answer_to_each() -> None:
    tree = {"prompt": follow_up("Q", reply("A", follow_up("x", reply("X")), follow_up("y", reply("Y"), reply("no"))))}
    assert [[text for _, text in messages] for messages in read(tree, paths="top")] == [
        ["Q", "A", "x", "X"],
        ["Q", "A", "y", "Y"],
    ]


def test_a_tree_without_an_answer_is_turned_away_once() -> None:
    assert turned_away({"prompt": follow_up("Q", follow_up("R"))}, paths="all")[0] == "no-assistant-turn"


@pytest.mark.parametrize("mark", [{"deleted": True}, {"review_result": False}, {"deleted": "True"}])
def test_deleted_messages_are_left_out_with_what_follows_them(mark: dict) -> None:
    tree = {"prompt": follow_up("Q", reply("gone", follow_up("x", reply("y")), rank=0, **mark), reply("A", rank=1))}
    for paths in ("best", "top", "all"):
        assert read(tree, paths=paths) == [[("user", "Q"), ("assistant", "A")]]
    assert turned_away({"prompt": follow_up("Q", reply("A"), **mark)})[0] == "deleted-message"


def flat(name: object, parent: object, text: str, role: str = "assistant", **more: object) -> dict:
    return {"message_id": name, "parent_id": parent, "text": text, "role": role, **more}


ROWS = [
    flat("c", "b", "two", "prompter"),
    flat("a", None, "Q", "prompter"),
    flat("b", "a", "best", rank=0.0),
    flat("d", "a", "worse", rank=1.0),
    flat("e", None, "Q2", "prompter"),
    flat("f", "e", "A2"),
    flat("g", "c", "end"),
]


def test_flat_rows_become_nested_trees_that_are_read_as_such() -> None:
    found = list(trees_of_rows(enumerate(ROWS, 1)))
    assert [(number, size) for number, _, size in found] == [(2, 5), (5, 2)]
    assert all(holds_flat_trees(row) for row in ROWS)
    assert [read(tree) for _, tree, _ in found] == [
        [[("user", "Q"), ("assistant", "best"), ("user", "two"), ("assistant", "end")]],
        [[("user", "Q2"), ("assistant", "A2")]],
    ]
    assert len(read(found[0][1], paths="all")) == 2


@pytest.mark.parametrize(
    "keys", [("id", "parent_id", "text"), ("id", "parent", "content"), ("message_id", "reply_to", "text")]
)
def test_ids_parents_and_texts_go_by_several_names(keys: tuple[str, str, str]) -> None:
    names = dict(zip(("message_id", "parent_id", "text"), keys, strict=True))
    rows = [{names.get(key, key): value for key, value in row.items()} for row in ROWS]
    assert [(number, size) for number, _, size in trees_of_rows(enumerate(rows, 1))] == [(2, 5), (5, 2)]


def test_numbers_as_ids_may_have_become_floats() -> None:
    rows = [flat(1, float("nan"), "Q", "prompter"), flat(2, 1.0, "A"), flat("3", "2", "R", "prompter")]
    assert [(number, size) for number, _, size in trees_of_rows(enumerate(rows, 1))] == [(1, 3)]


def test_rows_without_their_parent_come_out_as_they_are_and_are_turned_away() -> None:
    rows = [flat("a", None, "Q", "prompter"), flat("b", "a", "A"), flat("c", "x", "lost"), flat("d", "c", "lost, too")]
    found = list(trees_of_rows(enumerate(rows, 1)))
    assert [(number, row if number > 1 else None, size) for number, row, size in found] == [
        (1, None, 2),
        (3, rows[2], 1),
        (4, rows[3], 1),
    ]
    detail = "the row replies to 'x'; no row of this file leads there from a first message"
    assert turned_away(rows[2]) == ("missing-parent", detail)


def test_rows_that_reply_in_a_circle_come_out_as_they_are() -> None:
    rows = [flat("a", "b", "x"), flat("b", "a", "y"), flat("c", "c", "z")]
    assert list(trees_of_rows(enumerate(rows, 1))) == [(1, rows[0], 1), (2, rows[1], 1), (3, rows[2], 1)]


def test_rows_that_are_no_messages_pass_through_in_their_place() -> None:
    rows = [flat("a", None, "Q", "prompter"), {"text": "A page."}, flat("b", "a", "A")]
    assert [(number, size) for number, _, size in trees_of_rows(enumerate(rows, 1))] == [(1, 2), (2, 1)]
    assert not holds_flat_trees({"text": "A page."})
    assert not holds_flat_trees(["Hello"])


def test_a_deep_flat_dialogue_is_read() -> None:
    rows = [flat(0, None, "0", "prompter")]
    rows += [
        flat(this, before, str(this), ("prompter", "assistant")[this % 2]) for before, this in pairwise(range(5000))
    ]
    ((_, tree, size),) = trees_of_rows(enumerate(rows, 1))
    assert size == 5000
    assert [len(messages) for messages in read(tree, paths="all")] == [5000]


@given(st.lists(st.tuples(st.integers(0, 8), st.none() | st.integers(0, 8)), max_size=12))
def test_each_flat_row_is_counted_once(links: list[tuple[int, int | None]]) -> None:
    rows = [flat(name, parent, "x") for name, parent in links]
    found = list(trees_of_rows(enumerate(rows, 1)))
    assert sum(size for _, _, size in found) == len(rows)
    assert [number for number, _, _ in found] == sorted({number for number, _, _ in found})


@given(st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=3), max_leaves=15))
def test_every_answer_of_a_tree_is_on_some_path(shape: list) -> None:
    count = iter(range(1000))

    def node(below: list, role: str) -> dict:
        other = "assistant" if role == "prompter" else "prompter"
        return {"role": role, "text": f"t{next(count)}", "replies": [node(one, other) for one in below]}

    def answers(tree: dict) -> set[str]:
        own = {tree["text"]} if tree["role"] == "assistant" else set()
        return own.union(*(answers(one) for one in tree["replies"]))

    tree = node([shape], "prompter")
    found = [messages for messages in read({"prompt": tree}, paths="all")]
    assert {text for messages in found for role, text in messages if role == "assistant"} == answers(tree)
    assert all(messages[-1][0] == "assistant" for messages in found)
