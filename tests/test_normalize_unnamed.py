"""Dialogues that name their speakers, or the keys of question and answer, in rarer ways: literal rows in and out."""

import pytest

from dataprep.stages.normalize.branches import parts_of
from dataprep.stages.normalize.convert import KEYS, convert_as
from dataprep.stages.normalize.readings import reading_of
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.normalize.settings import Settings

HELLO = [("user", "Hello"), ("assistant", "Hi")]
TWO = [*HELLO, ("user", "Bye"), ("assistant", "So long")]
SYSTEM = ("system", "Be brief.")
MESSAGES = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}]


def read(row: object) -> list[tuple]:
    """Give the format, messages and tools of each conversation that a row holds."""
    name, parts = parts_of(row, Settings())
    return [(name, *convert_as(part, name, Settings())) for part in parts]


def messages_of(row: object) -> list[tuple]:
    ((_, messages, _),) = read(row)
    return messages


def in_a_table(row: dict) -> dict:
    """Give a row as a Parquet file does: only the keys that are read, null where the row has none."""
    return dict.fromkeys(KEYS) | {key: row[key] for key in KEYS if key in row}


def turned_away(row: object) -> TurnedAway:
    with pytest.raises(TurnedAway) as caught:
        read(row)
    return caught.value


@pytest.mark.parametrize(
    "row",
    [
        {"conversation": [{"message": "Hello", "is_human": True}, {"message": "Hi", "is_human": False}]},
        {"chat": [{"text": "Hello", "is_bot": False}, {"text": "Hi", "is_bot": True}]},
        {"messages": [{"message": "Hello", "attrs": []}, {"message": "Hi"}]},
        {"log": [{"text": "Hello", "metadata": {}}, {"text": "Hi", "metadata": {"taxi": {}}}]},
        {"messages": [{"type": "human", "content": "Hello"}, {"type": "ai", "content": "Hi"}]},
        {"messages": [{"type": "human", "data": {"content": "Hello"}}, {"type": "ai", "data": {"content": "Hi"}}]},
        {"messages": [{"name": "user", "content": "Hello"}, {"name": "assistant", "content": "Hi"}]},
        {
            "turns": [
                {"author": {"role": "user"}, "content": "Hello"},
                {"author": {"role": "assistant"}, "content": "Hi"},
            ]
        },
        {"chat_messages": [{"sender": "human", "text": "Hello"}, {"sender": "assistant", "text": "Hi"}]},
        {"对话内容": [{"角色": "来访者", "内容": "Hello"}, {"角色": "咨询师", "内容": "Hi"}]},
        {"对话": [{"来访者": "Hello", "咨询师": "Hi"}]},
        {"rounds": [{"User": "Hello", "Bot": "Hi"}]},
        {"dialogue": [{"speaker": "患者", "sentence": "Hello"}, {"speaker": "医生", "sentence": "Hi"}]},
        {"log": [{"speaker": "patient", "text": "Hello"}, {"speaker": "doctor", "text": "Hi"}], "record": {"id": 1}},
        {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "text": "Hi"}]},
        {"content": ["Hello", "Hi"], "document_id": 0},
        {"messages": [{"content": None, "message": "Hello"}, {"content": None, "message": "Hi"}]},
        {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": None, "text": "Hi"}]},
        {"messages": {"0": MESSAGES[0], "1": MESSAGES[1]}},
        {"dialogue": {"turn_2": {"speaker": "bot", "text": "Hi"}, "turn_1": {"speaker": "user", "text": "Hello"}}},
        {"conversations": [{"from": "human", "value": "Hello"}, {"from": "bing", "value": "Hi"}]},
        {"question": "Hello", "answer": {"value": "Hi", "aliases": []}},
        {"对话": ["问：Hello", "答：Hi"]},
        {"data": ["Patient: Hello", "Doctor: Hi"]},
        {"speaker": ["A", "B"], "text": ["Hello", "Hi"]},
        {"roles": ["user", "assistant"], "texts": ["Hello", "Hi"]},
        {"Human": ["Hello"], "Assistant": ["Hi"]},
        {"questions": [["Hello"]], "answers": ["Hi"]},
        {"role": "prompter", "text": "Hello", "children": [{"role": "assistant", "text": "Hi", "children": []}]},
        {"dialog": {"messages": MESSAGES, "id": 3}},
        {"text": "<|Human|>Hello<eoh>\n<|MOSS|>Hi<eom>"},
        {"text": "【用户】Hello\n【助手】Hi"},
    ],
)
def test_a_dialogue_of_two_turns_by_rarer_names(row: dict) -> None:
    assert messages_of(row) == HELLO


@pytest.mark.parametrize("key", ["chats", "chat_messages", "log", "content", "transcript", "rounds", "msgs", "session"])
def test_tables_keep_the_columns_of_rarer_names(key: str) -> None:
    assert (
        messages_of(in_a_table({"id": 1, key: [{"sender": "user", "text": "Hello"}, {"sender": "bot", "text": "Hi"}]}))
        == HELLO
    )


@pytest.mark.parametrize(
    ("first", "second"),
    [("USER", "SYSTEM"), ("usr", "sys"), ("speaker", "listener"), ("seeker", "therapist"), ("사용자", "챗봇")],
)
def test_two_speakers_of_whom_nobody_doubts_who_answers(first: str, second: str) -> None:
    turns = [{"speaker": first, "utterance": "Hello"}, {"speaker": second, "utterance": "Hi"}]
    assert messages_of({"turns": turns}) == HELLO


def test_a_system_that_does_not_take_turns_with_the_user_is_none_who_answers() -> None:
    turns = [{"speaker": "system", "text": "Be brief."}, {"speaker": "user", "text": "Hello"}]
    assert turned_away({"turns": turns}).reason == "no-assistant-turn"
    assert messages_of({"turns": [*turns, {"speaker": "assistant", "text": "Hi"}]}) == [SYSTEM, *HELLO]
    openai = [{"role": "user", "content": "Hello"}, {"role": "system", "content": "Hi"}]
    assert turned_away({"messages": openai}).reason == "no-assistant-turn"


@pytest.mark.parametrize(
    "row",
    [
        {"user_1": "Hello", "bot_1": "Hi", "user_2": "Bye", "bot_2": "So long"},
        {"bot1": "Hi", "user1": "Hello", "bot2": "So long", "user2": "Bye", "user3": None},
        {"message_1": "Hello", "message_2": "Hi", "message_3": "Bye", "message_4": "So long"},
        {"turn_1": {"user": "Hello", "bot": "Hi"}, "turn_2": {"user": "Bye", "bot": "So long"}},
        {"history": ["Hello", "Hi", "Bye"], "response": "So long", "goal": [["a"]]},
        {"context": ["Hello", "Hi", "Bye"], "response": "So long"},
        {"history": "User: Hello\nBot: Hi", "question": "Bye", "answer": "So long"},
    ],
)
def test_a_dialogue_of_four_turns_in_columns_or_up_to_its_answer(row: dict) -> None:
    assert messages_of(row) == TWO


def test_numbered_messages_say_who_speaks() -> None:
    row = {"message_1": {"role": "user", "content": "Hello"}, "message_2": {"role": "assistant", "content": "Hi"}}
    assert messages_of({"role_1": "Cook", **row}) == HELLO


def test_texts_before_an_answer_are_counted_back_from_it() -> None:
    assert messages_of({"history": ["Hi", "Bye"], "response": "So long"}) == [("assistant", "Hi"), *TWO[2:]]


@pytest.mark.parametrize(
    "row",
    [
        {"user_1": "Hello", "bot_2": "Hi"},
        {"question_1": "Hello", "answer_1": "Hi"},
        {"response_1": {"role": "assistant", "content": "Hi"}, "response_2": {"role": "assistant", "content": "Ho"}},
        {"doc1": {"text": "A page."}, "doc2": {"text": "Another."}},
        {"questions": [["Hello", "Good day"]], "answers": ["Hi"]},
    ],
)
def test_columns_that_may_mean_several_things_are_not_guessed_at(row: dict) -> None:
    assert turned_away(row).reason == "unknown-format"


def test_rows_under_their_ids_are_rows() -> None:
    log = [{"text": "Hello", "metadata": {}}, {"text": "Hi", "metadata": {}}]
    assert read({"MUL1.json": {"goal": {}, "log": log}, "MUL2.json": {"goal": {}, "log": log}}) == [
        ("alternating", HELLO, None),
        ("alternating", HELLO, None),
    ]


def test_a_row_under_its_id_that_is_damaged_is_turned_away_alone() -> None:
    name, parts = parts_of({"1": {"messages": MESSAGES}, "2": {"messages": 7}}, Settings())
    assert convert_as(parts[0], name, Settings())[0] == HELLO
    with pytest.raises(TurnedAway, match="messages is a number"):
        convert_as(parts[1], name, Settings())


def test_marks_tell_who_speaks_even_where_the_doctor_is_first() -> None:
    assert messages_of({"utterances": ["医生：Yes?", "病人：Hello", "医生：Hi"]}) == [("assistant", "Yes?"), *HELLO]
    assert messages_of(["病人：Hello", "医生：Hi"]) == HELLO
    assert messages_of({"data": ["Note: it rains", "Hi"]}) == [("user", "Note: it rains"), ("assistant", "Hi")]


def test_a_bare_list_of_texts_is_turned_away_with_the_way_to_read_it() -> None:
    away = turned_away(["Hello", "Hi"])
    assert (away.reason, "--format alternating" in away.fix) == ("bad-message", True)


def test_a_row_of_one_turn_says_when_rows_are_joined() -> None:
    away = turned_away({"Dialogue_ID": "7_1", "Speaker": "Ana", "Utterance": "Hello"})
    assert away.reason == "unknown-format"
    assert away.fix == (
        "the row is one turn; rows of a dialogue are joined where the file's first row names a known speaker: "
        "--role NAME=user, --role NAME=assistant"
    )


@pytest.mark.parametrize(
    ("row", "question"),
    [
        (
            {"question": "Sleep", "description": "I lie awake.", "answers": [{"answer_text": "Hi"}]},
            "Sleep\nI lie awake.",
        ),
        ({"title": "Sleep", "content": "I lie awake.", "answer": "Hi"}, "Sleep\nI lie awake."),
        ({"questionTitle": "Sleep", "questionText": "I lie awake.", "answerText": "Hi"}, "Sleep\nI lie awake."),
        ({"definition": "Translate.", "inputs": "Hallo", "targets": "Hi"}, "Translate.\nHallo"),
        ({"instruction": "Translate.", "source": "Hallo", "target": "Hi"}, "Translate.\nHallo"),
        ({"指令": "翻译", "输入": "Hallo", "输出": "Hi"}, "翻译\nHallo"),
        ({"inputs": [1, 2], "inputs_pretokenized": "Hello", "targets": [3], "targets_pretokenized": "Hi"}, "Hello"),
        ({"input": "Hello", "reasoning_content": "Hm.", "content": "Hi"}, "Hello"),
        ({"text": "Hello", "output": "Hi"}, "Hello"),
        ({"質問": "Hello", "回答": "Hi"}, "Hello"),
        ({"query": "Hello", "reply": "Hi"}, "Hello"),
        ({"prompt": "Hello", "pos_resp": "Hi", "neg_resp": "Go away"}, "Hello"),
        ({"prompt": "Hello", "responses": ["Go away", "Hi"], "ranks": [2, 1]}, "Hello"),
    ],
)
def test_no_part_of_a_question_is_lost(row: dict, question: str) -> None:
    assert [message[:2] for message in messages_of(row)] == [("user", question), ("assistant", "Hi")]
    assert messages_of(in_a_table(row)) == messages_of(row)


@pytest.mark.parametrize(
    "choices",
    [
        {"options": {"A": "Rain", "B": "Sun"}},
        {"choices": ["Rain", "Sun"]},
        {"choices": {"label": ["A", "B"], "text": ["Rain", "Sun"]}},
        {"options": [{"key": "A", "value": "Rain"}, {"key": "B", "value": "Sun"}]},
        {"options": "['A. Rain', 'B. Sun']"},
        {"A": "Rain", "B": "Sun", "C": None},
    ],
)
def test_what_there_is_to_choose_from_stands_under_the_question(choices: dict) -> None:
    row = {"question": "Which is wet?", **choices, "answer": "A"}
    asked = [("user", "Which is wet?\nA. Rain\nB. Sun"), ("assistant", "A")]
    assert messages_of(row) == messages_of(in_a_table(row)) == asked
    assert messages_of({**row, "question": "Which is wet?\nA. Rain\nB. Sun"}) == asked


def test_columns_that_are_no_choices_stay_out_of_the_question() -> None:
    assert messages_of({"question": "Hello", "options": {"seed": 1}, "A": "x", "answer": "Hi"}) == HELLO
    assert messages_of({"question": "Hello", "options": {"top_p": "1", "seed": "7"}, "answer": "Hi"}) == HELLO
    assert messages_of({"q": "Hello", "a": "Hi"}) == HELLO


def test_a_text_beside_an_answer_is_a_dialogue_where_it_has_marks() -> None:
    assert messages_of({"text": "User: Hello\nBot: Hi", "output": "fine"}) == HELLO
    assert messages_of({"text": "A page.", "label": 1}) == [("text", "A page.")]


def test_the_system_prompt_of_a_row_comes_first() -> None:
    row = {"system_prompt": "Be brief.", "question": "Hello", "response": "Hi"}
    assert messages_of(row) == messages_of(in_a_table(row)) == [SYSTEM, *HELLO]
    assert messages_of({"system": "", **row}) == [SYSTEM, *HELLO]


def test_functions_beside_a_question_are_its_tools() -> None:
    assert read({"question": "Hello", "functions": [{"name": "now"}], "answer": "Hi"}) == [
        ("question-answer", HELLO, '[{"name":"now"}]')
    ]


def test_a_turn_that_holds_a_call_and_what_came_back_is_two() -> None:
    called = {"role": "tool", "name": "now", "parameters": {"zone": "UTC"}, "observation": "3"}
    row = {"conversations": [MESSAGES[0], {"role": "assistant", "content": "Wait."}, called, MESSAGES[1]]}
    call = ("assistant", "Wait.", None, ((None, "now", '{"zone":"UTC"}'),))
    assert messages_of(row) == [HELLO[0], call, ("tool", "3", None, None, "now"), HELLO[1]]


def test_what_came_back_from_a_call_has_many_names() -> None:
    for name in ("ipython", "tool_result", "function_response"):
        turns = [*MESSAGES, {"role": name, "content": "3"}, MESSAGES[1]]
        assert messages_of({"messages": turns}) == [*HELLO, ("tool", "3"), HELLO[1]]


def test_several_texts_for_one_answer_are_turned_away_with_what_to_do() -> None:
    away = turned_away({"instruction": "Hello", "output": ["Hi", "Ho"]})
    assert (away.reason, away.detail) == ("non-text-content", "output is a list of 2 texts, expected one")
    assert away.fix == "keep the text that is meant; of two, name the better one chosen, the other rejected"


def test_a_description_read_as_part_of_the_question_is_told() -> None:
    row = {"question": "Sleep", "description": "I lie awake.", "answer": "Hi"}
    assert reading_of("question-answer", row) == "`description` read as part of the question"
