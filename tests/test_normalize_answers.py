"""Rows of questions and answers, of preferences and of trees: literal rows in, literal messages out."""

import pytest
from rows import convert

from dataprep.stages.normalize.convert import role_names

HELLO = [("user", "Hello"), ("assistant", "Hi")]
USER, ASSISTANT = {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief."}


def converted(row: object) -> tuple:
    return convert(row, None, role_names({}))


@pytest.mark.parametrize(
    ("question_key", "answer_key"),
    [
        *[("question", "answer"), ("query", "answer"), ("prompt", "completion"), ("instruction", "response")],
        *[("input", "output"), ("title", "answer"), ("ask", "answer"), ("prompt", "output"), ("question", "response")],
    ],
)
def test_questions_and_answers_under_their_many_names(question_key: str, answer_key: str) -> None:
    row = {"id": 1, question_key: "Hello", answer_key: "Hi", "system": "Be brief.", "text": "rendered"}
    assert converted(row) == ("question-answer", [("system", "Be brief."), *HELLO], None)


@pytest.mark.parametrize(
    ("row", "question"),
    [
        ({"instruction": "When?", "context": "A page.", "response": "Hi", "category": "qa"}, "When?\nA page."),
        ({"instruction": "When?", "context": "", "response": "Hi"}, "When?"),
        ({"title": "Cough", "ask": "It hurts.", "answer": "Hi", "department": "x"}, "Cough\nIt hurts."),
        ({"title": "A page", "context": "It rains.", "question": "Does it?", "answer": "Hi"}, "Does it?\nIt rains."),
        ({"instruction": "Be kind.", "question": "Why?", "answer": "Hi"}, "Be kind.\nWhy?"),
        ({"question": "Why?", "prompt": "Q: Why? A:", "completion": "Hi"}, "Why?"),
    ],
)
def test_the_texts_of_a_question_are_joined_by_newlines(row: dict, question: str) -> None:
    assert converted(row) == ("question-answer", [("user", question), ("assistant", "Hi")], None)


def test_a_question_may_have_a_history() -> None:
    row = {"question": "Bye", "answer": "So long", "history": [["Hello", "Hi"]]}
    assert converted(row)[1] == [*HELLO, ("user", "Bye"), ("assistant", "So long")]


def test_parallel_lists_of_inputs_and_outputs() -> None:
    row = {"input": ["Hello", "Bye"], "output": ["Hi", "So long"], "system": "Be brief."}
    dialogue = [("system", "Be brief."), *HELLO, ("user", "Bye"), ("assistant", "So long")]
    assert converted(row) == ("parallel", dialogue, None)
    assert converted(row | {"input": ["Hello", "Bye", "?"]})[1] == [*dialogue, ("user", "?")]


@pytest.mark.parametrize(
    "row",
    [
        {
            "conversations": [{"from": "human", "value": "Hello"}],
            "chosen": {"from": "gpt", "value": "Hi"},
            "rejected": {"from": "gpt", "value": "No"},
        },
        {"prompt": [USER], "chosen": [ASSISTANT], "rejected": [{"role": "assistant", "content": "No"}]},
        {"prompt": "Hello", "chosen": [ASSISTANT]},
        {"question": "Hello", "chosen": ASSISTANT},
        {"prompt": "Hello", "chosen": [USER, ASSISTANT], "messages": [USER, ASSISTANT]},
        {"messages": [USER], "chosen": {"from": "gpt", "value": "Hi"}},
        {"messages": [USER, ASSISTANT], "chosen": {"role": "assistant", "content": "Hello!"}},
    ],
)
def test_of_a_preference_the_chosen_answer_is_taken_after_what_stands_before_it(row: dict) -> None:
    assert converted(row) == ("preference", HELLO, None)


def test_a_system_text_may_stand_before_a_whole_chosen_dialogue() -> None:
    expected = [("system", "Be brief."), *HELLO]
    assert converted({"prompt": [SYSTEM], "chosen": [USER, ASSISTANT]})[1] == expected
    assert converted({"prompt": [SYSTEM], "chosen": [SYSTEM, USER, ASSISTANT]})[1] == expected
    assert converted({"system": "Be brief.", "prompt": "Hello", "chosen": [ASSISTANT]})[1] == expected


def test_a_chosen_text_without_marks_answers_its_question() -> None:
    assert converted({"prompt": "Hello", "chosen": "Hi", "rejected": "No"})[:2] == ("question-answer", HELLO)


def test_a_chosen_that_is_no_message_does_not_make_a_preference() -> None:
    assert converted({"messages": [USER, ASSISTANT], "chosen": True})[:2] == ("openai", HELLO)


def reply(text: str, *replies: dict, role: str = "assistant", **more: object) -> dict:
    return {"text": text, "role": role, "replies": list(replies), **more}


def test_of_a_tree_the_best_ranked_path_is_taken() -> None:
    thanks = reply("Thanks", reply("Sure", rank=None), reply("No", rank=None), role="prompter")
    best, worse = reply("Hi", thanks, rank=0), reply("No", reply("Never", role="prompter"), rank=1)
    row = {"message_tree_id": "a", "prompt": reply("Hello", worse, best, role="prompter")}
    assert converted(row) == ("oasst", [*HELLO, ("user", "Thanks"), ("assistant", "Sure")], None)
