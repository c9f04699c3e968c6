"""Unusual arrangements of a dialogue: literal rows in, literal messages out."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataprep.stages.normalize.branches import parts_of
from dataprep.stages.normalize.convert import KEYS, convert_as
from dataprep.stages.normalize.readings import reading_of
from dataprep.stages.normalize.reasons import FIXES, TurnedAway
from dataprep.stages.normalize.settings import Settings

HELLO = [("user", "Hello"), ("assistant", "Hi")]
TWO = [*HELLO, ("user", "Bye"), ("assistant", "So long")]
SYSTEM = ("system", "Be brief.")
MESSAGES = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]
SENT, CAME_BACK = {"messages": MESSAGES[:1], "model": "x"}, {"choices": [{"index": 0, "message": MESSAGES[1]}]}


def read(row: object, **settings: object) -> list[tuple]:
    """Give the format, messages and tools of each conversation that a row holds."""
    settled = Settings(**settings)  # type: ignore[arg-type]
    name, parts = parts_of(row, settled)
    return [(name, *convert_as(part, name, settled)) for part in parts]


def as_in_a_table(row: object) -> object:
    """Give a row as a Parquet file does: of the keys that are read, all are there, null where the row has none."""
    return dict.fromkeys(KEYS) | {key: row[key] for key in KEYS if key in row} if isinstance(row, dict) else row


def read_one(row: object) -> tuple:
    (found,) = read(row)
    assert read(as_in_a_table(row)) == [found]
    return found[:2]


@pytest.mark.parametrize(
    ("question_key", "answer_key"),
    [
        *[("user", "assistant"), ("human", "gpt"), ("human", "bot"), ("human", "assistant"), ("q", "a")],
        *[("input_text", "output_text"), ("source", "target"), ("问题", "回答"), ("Patient", "Doctor")],
        *[("Question", "Answer"), ("Context", "Response"), ("INPUT", "OUTPUT"), ("Instruction", "Response")],
        *[("question", "best_answer"), ("problem", "solution"), ("questionText", "answerText"), ("body", "answer")],
        *[("inputs", "targets"), ("message_1", "message_2"), ("Prompt", "Completion")],
    ],
)
def test_further_names_of_one_question_and_its_answer(question_key: str, answer_key: str) -> None:
    row = {"id": 7, question_key: "Hello", answer_key: "Hi"}
    assert read_one(row) == ("question-answer", HELLO)
    assert {question_key, answer_key} <= {*KEYS, "questionText", "answerText"}


@pytest.mark.parametrize(
    ("row", "messages"),
    [
        ({"Question": "Hello", "Answer": "Hi", "System": "Be brief."}, [SYSTEM, *HELLO]),
        ({"title": "Rain", "body": "Why?", "answer": "Hi"}, [("user", "Rain\nWhy?"), HELLO[1]]),
        (
            {"question": "Why?", "context": "It rains.", "answers": {"text": ["Hi", "hi"], "answer_start": [1, 2]}},
            [("user", "Why?\nIt rains."), HELLO[1]],
        ),
        ({"question": "Hello", "answers": ["Hi", "Hey"]}, HELLO),
        ({"question": "Hello", "answer": ["Hi"]}, HELLO),
        ({"problem": "Hello", "solution": "Hi", "answer": "4"}, HELLO),
        ({"human": "Hello", "assistant": "Hi", "text": "rendered"}, HELLO),
    ],
)
def test_what_may_stand_beside_a_question_and_its_answer(row: dict, messages: list) -> None:
    assert read_one(row) == ("question-answer", messages)


@pytest.mark.parametrize(
    "row", [{"user": "ann"}, {"source": "web", "target": "x", "text": "A page."}, {"a": "x", "title": "y"}]
)
def test_half_a_pair_means_nothing(row: dict) -> None:
    if "text" in row:
        assert read_one(row) == ("text", [("text", "A page.")])
    else:
        assert turned_away(row).reason == "unknown-format"


@pytest.mark.parametrize(
    "row",
    [
        {"instruction": "Hello", "output": ["Hi", "Hey"]},
        {"prompt": "Hello", "response": ["Hi", "Hey"]},
        {"question": "Hello", "answer": ["Hi", "Hey"]},
    ],
)
def test_several_answers_are_never_joined(row: dict) -> None:
    assert turned_away(row).reason == "non-text-content"


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        *[("questions", "answers"), ("queries", "responses"), ("inputs", "outputs"), ("human", "assistant")],
        *[("user", "assistant"), ("prompts", "completions"), ("instruction", "output"), ("prompt", "response")],
        *[("turns", "reference"), ("turns", "answers"), ("question", "answer")],
    ],
)
def test_lists_of_questions_and_of_answers(asked: str, answered: str) -> None:
    row = {asked: ["Hello", "Bye"], answered: ["Hi", "So long"], "system": "Be brief."}
    assert read_one(row) == ("parallel", [SYSTEM, *TWO])


def test_an_instruction_stands_before_the_first_of_the_inputs() -> None:
    row = {"instruction": "Reply.", "input": ["Hello", "Bye"], "output": ["Hi", "So long"]}
    assert read_one(row) == ("parallel", [("user", "Reply.\nHello"), *TWO[1:]])


@pytest.mark.parametrize(
    "history",
    [
        [["Hello", "Hi"]],
        ["Hello", "Hi"],
        MESSAGES,
        [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}],
        [{"prompt": "Hello", "response": "Hi"}],
        [{"question": "Hello", "answer": "Hi"}],
        [{"user": "Hello", "bot": "Hi"}],
        [{"human": "Hello", "assistant": "Hi"}],
        '[["Hello", "Hi"]]',
        json.dumps(MESSAGES),
        "[['Hello', 'Hi']]",
        {"role": ["user", "assistant"], "content": ["Hello", "Hi"]},
    ],
)
def test_a_history_may_have_any_of_these_shapes(history: object) -> None:
    for row in ({"instruction": "Bye", "output": "So long"}, {"question": "Bye", "answer": "So long"}):
        assert read_one(row | {"history": history})[1] == TWO


@pytest.mark.parametrize(
    ("history", "detail"),
    [
        (["Hello", "Hi", "Bye"], "history holds 3 texts; each question needs its answer"),
        ([{"question": "Hello", "answer": "Hi"}, {"x": 1}], "pair 2 of history has no question and answer"),
        ("yesterday", "history is a string, expected a list"),
        ([["a", "b", "c"]], "pair 1 of history is not a [question, answer] pair"),
    ],
)
def test_a_history_of_no_known_shape_is_turned_away(history: object, detail: str) -> None:
    away = turned_away({"instruction": "Bye", "output": "So long", "history": history})
    assert (away.reason, away.detail) == ("bad-history", detail)


@pytest.mark.parametrize("key", ["messages", "conversations", "conversation", "dialogue", "dialog", "data", "turns"])
def test_pairs_of_texts_are_turns(key: str) -> None:
    row = {key: [["Hello", "Hi"], ["Bye", "So long"]], "system": "Be brief."}
    assert read_one(row) == ("turn-pairs", [SYSTEM, *TWO])
    assert read_one({key: [["Hello", "Hi"], ["Bye"]]}) == ("turn-pairs", TWO[:3])


def test_a_bare_list_of_pairs_is_a_row() -> None:
    assert read_one([["Hello", "Hi"], ["Bye", "So long"]]) == ("turn-pairs", TWO)


def test_pairs_of_a_role_and_a_text_are_told_from_questions_and_answers() -> None:
    row = {"messages": [["system", "Be brief."], ["human", "Hello"], ["assistant", "Hi"]]}
    assert read_one(row) == ("openai", [SYSTEM, *HELLO])
    assert read_one({"dialog": [["客户", "Hello"], ["客服", "Hi"]]}) == ("openai", HELLO)


@pytest.mark.parametrize(
    "turns",
    [
        [{"user": "Hello", "assistant": "Hi"}],
        [{"question": "Hello", "answer": "Hi"}],
        [{"prompt": "Hello", "response": "Hi"}],
        [{"instruction": "Hello", "input": "", "output": "Hi"}],
    ],
)
def test_exchanges_by_other_names(turns: list) -> None:
    assert read_one({"conversation": turns}) == ("turn-pairs", HELLO)


def test_an_exchange_keeps_its_instruction_and_its_input() -> None:
    turns = [{"system": "Be brief.", "instruction": "Reply.", "input": "Hello", "output": "Hi"}]
    assert read_one({"conversation": turns}) == ("turn-pairs", [SYSTEM, ("user", "Reply.\nHello"), HELLO[1]])


def test_a_list_of_rows_is_no_dialogue() -> None:
    row = {"version": "1", "data": [{"question": "Hello", "answer": "Hi"}, {"question": "Bye", "answer": "So long"}]}
    assert turned_away(row).reason == "unknown-format"


def test_speakers_tell_who_says_what() -> None:
    said = ["Hello", "Are you there?", "Hi"]
    expected = [("user", "Hello"), ("user", "Are you there?"), ("assistant", "Hi")]
    assert read_one({"dialogue": said, "speakers": ["Ann", "Ann", "Bo"]}) == ("alternating", expected)
    assert read_one({"dialogue": said, "speakers": ["client", "client", "counselor"]}) == ("alternating", expected)
    swapped = [("assistant", "Hello"), ("assistant", "Are you there?"), ("user", "Hi")]
    assert read_one({"dialogue": said, "speakers": ["assistant", "assistant", "Bo"]}) == ("alternating", swapped)
    away = turned_away({"dialogue": said, "speakers": ["Ann", "Bo", "Cy"]})
    assert (away.reason, away.detail) == ("unknown-role", "3 speak, of whom 'Ann' has no known role")


@pytest.mark.parametrize(
    "cell",
    [
        json.dumps(MESSAGES),
        str(MESSAGES),
        {"role": ["user", "assistant"], "content": ["Hello", "Hi"]},
    ],
)
@pytest.mark.parametrize("key", ["messages", "conversations", "conversation", "dialog", "history"])
def test_a_cell_may_hold_the_messages_as_text_or_as_columns(cell: object, key: str) -> None:
    assert read_one({"id": "1", key: cell}) == ("openai", HELLO)


def test_a_cell_may_hold_tools_and_exchanges() -> None:
    row = {"conversations": json.dumps([["Hello", "Hi"]]), "tools": '[{"name": "area"}]'}
    assert read(row) == [("turn-pairs", HELLO, '[{"name": "area"}]')]


@pytest.mark.parametrize("key", ["history", "utterances", "chat"])
def test_a_dialogue_under_a_name_of_other_meanings(key: str) -> None:
    assert read_one({key: MESSAGES, "system": "Be brief."}) == ("openai", [SYSTEM, *HELLO])
    assert read_one({key: [{"speaker": "user", "text": "Hello"}, {"speaker": "bot", "text": "Hi"}]})[1] == HELLO
    assert read_one({"utterances": ["Hello", "Hi"]}) == ("alternating", HELLO)
    assert turned_away({"history": ["Hello", "Hi"]}).reason == "unknown-format"


@pytest.mark.parametrize("wrapper", ["row", "data", "json", "item", "conversation", "body"])
def test_a_row_may_be_wrapped(wrapper: str) -> None:
    assert read_one({"id": 1, wrapper: {"messages": MESSAGES}, "system": "Be brief."}) == ("openai", [SYSTEM, *HELLO])
    assert read_one({wrapper: {"instruction": "Hello", "output": "Hi"}}) == ("alpaca", HELLO)


def test_two_wrapped_rows_in_one_are_not_guessed_at() -> None:
    assert turned_away({"row": {"messages": MESSAGES}, "json": {"messages": MESSAGES}}).reason == "unknown-format"


@pytest.mark.parametrize(
    "row",
    [
        {"request": SENT, "response": CAME_BACK},
        {"custom_id": "1", "body": SENT, "response": {"status_code": 200, "body": CAME_BACK}},
        {"request": {"method": "POST", "body": SENT}, "response": {"body": CAME_BACK}},
        SENT | CAME_BACK,
        SENT | {"response": CAME_BACK},
        SENT | {"response": "Hi"},
        SENT | {"completion": "Hi"},
        {"messages": MESSAGES, "response": "Hi"},
        {"messages": MESSAGES, "response": CAME_BACK},
    ],
)
def test_what_a_client_sent_and_what_came_back_are_one_dialogue(row: dict) -> None:
    assert read_one(row) == ("openai", HELLO)


def test_what_came_back_alone_has_no_question() -> None:
    assert turned_away({"custom_id": "1", "response": {"body": CAME_BACK}}).reason == "no-question"
    assert turned_away({"question_id": 81, "choices": [{"turns": ["Hi"]}]}).reason == "no-question"


def test_a_batch_request_without_its_answer_has_no_assistant_turn() -> None:
    assert turned_away({"custom_id": "1", "method": "POST", "body": SENT}).reason == "no-assistant-turn"


def test_the_turns_of_a_question_set_beside_their_answers() -> None:
    row = {"question_id": 81, "turns": ["Hello", "Bye"], "choices": [{"index": 0, "turns": ["Hi", "So long"]}]}
    assert read_one(row) == ("parallel", TWO)


def test_each_instance_of_an_instruction_is_a_conversation() -> None:
    instances = [{"input": "Hello", "output": "Hi"}, {"input": "", "output": "So long"}]
    assert read({"id": "t", "instruction": "Reply.", "instances": instances}) == [
        ("alpaca", [("user", "Reply.\nHello"), ("assistant", "Hi")], None),
        ("alpaca", [("user", "Reply."), ("assistant", "So long")], None),
    ]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": MESSAGES[:1], "completion": MESSAGES[1:]},
        {"prompt": MESSAGES[:1], "completion": "Hi"},
        {"prompt": "Hello", "completion": MESSAGES[1:]},
        {"prompt": MESSAGES[:1], "response": "Hi"},
        {"history": MESSAGES[:1], "response": "Hi"},
        {"context": MESSAGES[:1], "response": "Hi"},
        {"prompt": json.dumps(MESSAGES[:1]), "completion": json.dumps(MESSAGES[1:])},
        {"prompt": MESSAGES[:1], "completion": [{"from": "gpt", "value": "Hi"}]},
    ],
)
def test_a_prompt_and_its_completion_may_be_messages(row: dict) -> None:
    assert read_one(row) == ("openai", HELLO)


def test_many_keys_of_a_message_do_not_matter() -> None:
    turns = [message | {"language": "English", "toxic": False, "turn_identifier": 5} for message in MESSAGES]
    assert read_one({"conversation_hash": "x", "conversation": turns, "turn": 1}) == ("openai", HELLO)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=20)
SAID = TEXT.filter(lambda text: text.strip() != "")
PAIRS = st.lists(st.tuples(SAID, SAID), min_size=1, max_size=4)


@given(PAIRS)
def test_dialogues_written_in_each_arrangement_come_back(pairs: list[tuple[str, str]]) -> None:
    messages = [message for question, answer in pairs for message in (("user", question), ("assistant", answer))]
    openai = [{"role": role, "content": text} for role, text in messages]
    questions, answers = [question for question, _ in pairs], [answer for _, answer in pairs]
    *history, (question, answer) = pairs
    for row in (
        {"row": {"messages": openai}},
        {"messages": json.dumps(openai)},
        {"conversations": str(openai)},
        {"messages": {"role": [role for role, _ in messages], "content": [text for _, text in messages]}},
        {"request": {"messages": openai[:-1]}, "response": {"choices": [{"message": openai[-1]}]}},
        {"prompt": openai[:-1], "completion": openai[-1:]},
        {"input": {"messages": openai[:-1]}, "preferred_output": openai[-1:], "non_preferred_output": openai[-1:]},
        {"questions": questions, "answers": answers},
        {"turns": questions, "choices": [{"turns": answers}]},
        {"turns": [{"question": asked, "answer": said} for asked, said in pairs]},
        {"dialogue": [text for _, text in messages], "speakers": ["Ann", "Bo"] * len(pairs)},
        {"question": question, "answer": answer, "history": [list(pair) for pair in history]},
        {"Question": question, "Answer": answer, "history": [text for pair in history for text in pair]},
    ):
        assert read_one(json.loads(json.dumps(row)))[1] == messages


NAMES = sorted({*KEYS, "content", "value", "from", "message", "turns", "full_text", "true", "model_a", '[{"role":'})
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(NAMES)
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=20,
)


@given(
    st.dictionaries(st.sampled_from(NAMES), JSON, max_size=5) | JSON, st.sampled_from(["chosen", "rejected", "both"])
)
def test_any_value_becomes_conversations_or_leaves_under_a_known_reason(value: object, preference: str) -> None:
    try:
        found = read(value, preference=preference, paths="all") if isinstance(value, dict | list) else []
    except TurnedAway as away:
        assert away.reason in FIXES
        return
    for _, messages, _ in found:
        assert {message[0] for message in messages} <= {"system", "user", "assistant", "tool", "text"}


def turned_away(row: object) -> TurnedAway:
    with pytest.raises(TurnedAway) as caught:
        read(row)
    assert "\n" not in caught.value.detail
    return caught.value


def test_of_several_answers_the_first_is_read_and_said_to_be() -> None:
    row = {"question": "Hello", "answers": {"text": ["Hi", "Hey"]}}
    assert reading_of(read_one(row)[0], row) == "`answers` holds several; the first read as the answer"
    assert reading_of("question-answer", {"question": "Hello", "answers": ["Hi", "Hi"]}) is None
    sentence = "a list of strings read by the list of speakers; of two unknown names the first to speak is the user"
    assert reading_of("alternating", {"dialogue": ["Hello", "Hi"], "speakers": ["Ann", "Bo"]}) == sentence


def test_question_sets_and_labelled_answers_that_people_published(shared: Path) -> None:
    folder = shared / "data"
    reference = (folder / "fastchat" / "mt_bench_question.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in reference]
    answered = [row for row in rows if row.get("reference") and len(row["reference"]) == len(row["turns"])]
    assert answered
    assert {read_one(row)[0] for row in answered} == {"parallel"}
    answers = (folder / "fastchat" / "mt_bench_reference_gpt4.jsonl").read_text(encoding="utf-8").splitlines()
    assert {turned_away(json.loads(line)).reason for line in answers} == {"no-question"}
    labelled = json.loads((folder / "llamafactory" / "kto_en_demo.json").read_text(encoding="utf-8"))
    undesired = [row for row in labelled if row["label"] is False]
    assert {turned_away(row).reason for row in undesired} == {"undesired-answer"}
    assert {read(row, preference="rejected")[0][0] for row in undesired} == {"openai"}
