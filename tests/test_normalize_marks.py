"""Dialogues that are one string with speaker marks: every family, and the documents that only look alike."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from rows import convert

from dataprep.stages.normalize.convert import detect_format, role_names
from dataprep.stages.normalize.formats.marked import from_marked
from dataprep.stages.normalize.message import ROLE_NAMES
from dataprep.stages.normalize.readings import reading_of
from dataprep.stages.normalize.reasons import FIXES, TurnedAway
from dataprep.stages.normalize.role_pairs import ROLE_PAIRS
from dataprep.stages.normalize.texts.families import PREAMBLES, TAGS, VICUNA, Family, line_family
from dataprep.stages.normalize.texts.marks import WHITE, read_dialogue

HELLO = [("user", "Hello"), ("assistant", "Hi")]
BYE = [("user", "Bye"), ("assistant", "So long")]
BE = ("system", "Be brief.")


def read(row: object, format_name: str | None = None, **roles: str) -> tuple:
    return convert(row, format_name, role_names(roles))


def messages(text: str) -> list[tuple]:
    name, found, _ = read({"text": text})
    assert name == "marked"
    return found


def turned_away(row: object, format_name: str | None = None) -> TurnedAway:
    with pytest.raises(TurnedAway) as caught:
        read(row, format_name)
    return caught.value


@pytest.mark.parametrize(
    "text",
    [
        "\n\nHuman: Hello\n\nAssistant: Hi\n\nHuman: Bye\n\nAssistant: So long",
        "Human: Hello\nAssistant: Hi\nHuman: Bye\nAssistant: So long\n",
        "User: Hello\r\nAssistant: Hi\r\nUser: Bye\r\nAssistant: So long\r\n",
        "user: Hello\nbot: Hi\nuser: Bye\nbot: So long",
        "human: Hello\nassistant: Hi\nhuman: Bye\nassistant: So long",
        "Human:Hello\nAI:Hi\nHuman:Bye\nAI:So long",
        "**User:** Hello\n\n**Assistant:** Hi\n\n**User:** Bye\n\n**Assistant:** So long",
        "**User**: Hello\n**Bot**: Hi\n**User**: Bye\n**Bot**: So long",
        "[User]: Hello\n[AI]: Hi\n[User]: Bye\n[AI]: So long",
        "Question: Hello\nAnswer: Hi\n\nQuestion: Bye\nAnswer: So long",
        "Q: Hello\nA: Hi\nQ: Bye\nA: So long",
        "用户：Hello\n助手：Hi\n用户：Bye\n助手：So long",
        "问：Hello\n答：Hi\n问：Bye\n答：So long",
        "USER: Hello ASSISTANT: Hi</s>USER: Bye ASSISTANT: So long</s>",
        "USER: Hello\nASSISTANT: Hi</s>\nUSER: Bye\nASSISTANT: So long</s>",
        "<user>: Hello\n<bot>: Hi\n<user>: Bye\n<bot>: So long",
        "<human>: Hello\n<bot>: Hi\n<human>: Bye\n<bot>: So long",
        "<_user>Hello<_bot>Hi<_user>Bye<_bot>So long",
        "<|user|>\nHello</s>\n<|assistant|>\nHi</s>\n<|user|>\nBye</s>\n<|assistant|>\nSo long</s>\n",
        "<|user|>\nHello<|end|>\n<|assistant|>\nHi<|end|>\n<|user|>\nBye<|end|>\n<|assistant|>\nSo long<|end|>",
        "<|prompter|>Hello<|endoftext|><|assistant|>Hi<|endoftext|><|prompter|>Bye<|endoftext|><|assistant|>So long",
        "<|Human|>: Hello<eoh>\n<|MOSS|>: Hi<eom>\n<|Human|>: Bye<eoh>\n<|MOSS|>: So long<eom>\n",
        "[Human]: Hello<eoh> [MOSS]: Hi<eoa> [Human]: Bye<eoh> [MOSS]: So long<eoa>",
        "<|User|>:Hello<eoh>\n<|Bot|>:Hi<eoa>\n<|User|>:Bye<eoh>\n<|Bot|>:So long<eoa>\n",
        "<s>[INST] Hello [/INST] Hi </s><s>[INST] Bye [/INST] So long </s>",
        "[INST] Hello [/INST]Hi</s>[INST] Bye [/INST]So long</s>",
        "### Human: Hello### Assistant: Hi### Human: Bye### Assistant: So long",
        "### Instruction:\nHello\n\n### Response:\nHi\n\n### Instruction:\nBye\n\n### Response:\nSo long",
        "[Round 1]\n\n问：Hello\n\n答：Hi\n\n[Round 2]\n\n问：Bye\n\n答：So long",
        "<reserved_106>Hello<reserved_107>Hi<reserved_106>Bye<reserved_107>So long",
        "[|Human|]Hello\n[|AI|]Hi\n[|Human|]Bye\n[|AI|]So long\n[|Human|] ",
    ],
)
def test_a_dialogue_of_each_family_is_read(text: str) -> None:
    assert messages(text) == [*HELLO, *BYE]


@pytest.mark.parametrize(
    "text",
    [
        "CUSTOMER: Hello\nAGENT: Hi!\nCUSTOMER: Bye",
        "Client : Hello\nTherapist : Hi!\nClient : Bye",
        "来访者：Hello\n心理咨询师：Hi!\n来访者：Bye",
        "病人:Hello\n医生:Hi!\n病人:Bye",
        "顾客： Hello\n客服： Hi!\n顾客： Bye",
        "[Student]: Hello\n[Teacher]: Hi!\n[Student]: Bye",
    ],
)
def test_other_pairs_of_speakers_are_read_where_one_of_them_ends_a_sentence(text: str) -> None:
    assert messages(text) == [("user", "Hello"), ("assistant", "Hi!"), ("user", "Bye")]


@pytest.mark.parametrize(
    "text",
    [
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello<|im_end|>\n"
        "<|im_start|>assistant\nHi<|im_end|>\n",
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user"
        "<|end_header_id|>\n\nHello<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHi<|eot_id|>",
        "<bos><start_of_turn>system\nBe brief.<end_of_turn>\n<start_of_turn>user\nHello<end_of_turn>\n"
        "<start_of_turn>model\nHi<end_of_turn>\n",
        "<|system|>\nBe brief.</s>\n<|user|>\nHello</s>\n<|assistant|>\nHi</s>",
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHello [/INST] Hi </s>",
        "Be brief. USER: Hello ASSISTANT: Hi</s>",
        "SYSTEM: Be brief.\nUSER: Hello\nASSISTANT: Hi <|endoftext|>",
        "System: Be brief.\nUser: Hello\nAssistant: Hi",
        "Be brief.\n### Human: Hello\n### Assistant: Hi",
        "Be brief.\n\n### Instruction:\nHello\n\n### Response:\nHi",
        "Be brief.\n[|Human|] Hello\n[|AI|] Hi",
        "Be brief.\n<|Human|>: Hello<eoh>\n<|MOSS|>: Hi<eom>",
        "Be brief.<reserved_106>Hello<reserved_107>Hi",
        "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hello<｜Assistant｜>Hi<｜end▁of▁sentence｜>",
    ],
)
def test_a_system_text_may_stand_first(text: str) -> None:
    assert messages(text) == [BE, *HELLO]


@pytest.mark.parametrize("preamble", PREAMBLES)
def test_the_preamble_of_alpaca_is_dropped_and_its_input_joined_to_the_instruction(preamble: str) -> None:
    text = f"{preamble}\n\n### Instruction:\nTranslate.\n\n### Input:\n你好\n\n### Response:\nHello"
    assert messages(text) == [("user", "Translate.\n你好"), ("assistant", "Hello")]


def test_a_context_before_the_instruction_is_part_of_the_question() -> None:
    assert messages("### Context:\nA\n### Instruction:\nB\n### Response:\nC\n### End") == [
        ("user", "A\nB"),
        ("assistant", "C"),
    ]


def test_glaive_has_results_of_functions_and_calls() -> None:
    row = {
        "system": "SYSTEM: Be brief.",
        "chat": 'USER: News?\n\n\nASSISTANT: <functioncall> {"name": "news", "arguments": \'{"city": "Oslo"}\'} '
        '<|endoftext|>\n\n\nFUNCTION RESPONSE: {"news": []}\n\n\nASSISTANT: None. <|endoftext|>\n\n\n',
    }
    assert read(row) == (
        "marked",
        [
            BE,
            ("user", "News?"),
            ("assistant", "", None, ((None, "news", '{"city": "Oslo"}'),)),
            ("tool", '{"news": []}'),
            ("assistant", "None."),
        ],
        None,
    )


def moss(thoughts: str = "None", commands: str = "None", results: str = "None") -> dict:
    turn = {
        "Human": "<|Human|>: Hello<eoh>\n",
        "Inner Thoughts": f"<|Inner Thoughts|>: {thoughts}<eot>\n",
        "Commands": f"<|Commands|>: {commands}<eoc>\n",
        "Tool Responses": f"<|Results|>: {results}<eor>\n",
        "MOSS": "<|MOSS|>: Hi<eom>\n",
    }
    return {"meta_instruction": "Be brief.", "chat": {"turn_1": turn}}


def test_moss_leaves_out_what_is_none_and_keeps_thoughts_as_reasoning() -> None:
    assert read(moss())[1] == [BE, *HELLO]
    assert read(moss(thoughts="A greeting."))[1] == [BE, ("user", "Hello"), ("assistant", "Hi", "A greeting.")]
    assert read({"plain_text": "[Human]: Hello<eoh> [MOSS]: Hi<eoa>", "prefix": "Be brief."})[1] == [BE, *HELLO]
    assert read({"text": "User: Hello\nAssistant: Hi", "prefix": "Be brief."})[1] == HELLO


def test_a_command_of_moss_is_no_json_and_is_turned_away() -> None:
    away = turned_away(moss(commands='Search("tea")', results="tea"))
    assert (away.reason, away.detail) == ("bad-tool-call", "turn 3: the command 'Search(\"tea\")' is not JSON")


@pytest.mark.parametrize(
    "key",
    [
        *("messages", "conversations", "conversation", "dialogue", "dialog", "chat", "text", "content"),
        *("plain_text", "prompt", "chosen", "input"),
    ],
)
def test_a_dialogue_may_stand_under_many_keys(key: str) -> None:
    assert read({key: "User: Hello\nAssistant: Hi", "system": "Be brief."}) == ("marked", [BE, *HELLO], None)


@pytest.mark.parametrize("answer_key", ["response", "completion", "chosen", "output", "answer"])
@pytest.mark.parametrize(
    "prompt",
    [
        "Human: Hello\n\nAssistant: Hi\n\nHuman: Bye\n\nAssistant:",
        "<|user|>Hello<|assistant|>Hi<|user|>Bye<|assistant|>",
    ],
)
def test_a_prompt_with_marks_goes_before_its_answer(prompt: str, answer_key: str) -> None:
    assert read({"prompt": prompt, answer_key: " So long\n"}) == ("marked", [*HELLO, *BYE], None)


def test_an_empty_input_of_alpaca_is_left_out() -> None:
    row = {"prompt": "### Instruction:\nHello\n\n### Input:\n\n### Response:\n", "completion": "Hi</s>"}
    assert read(row)[:2] == ("marked", HELLO)


def test_a_prompt_may_end_with_the_users_turn() -> None:
    row = {"prompt": "User: Hello\nAssistant: Hi\nUser: Bye", "response": "So long"}
    assert read(row)[:2] == ("marked", [*HELLO, *BYE])


@pytest.mark.parametrize("key", ["instruction", "query", "question", "input"])
def test_a_question_with_marks_must_end_in_the_mark_of_its_answer(key: str) -> None:
    assert read({key: "User: Hello\nAssistant: Hi\nUser: Bye\nAssistant:", "output": "So long"})[1] == [*HELLO, *BYE]
    assert read({key: "User: Hello\nAssistant: Hi\nUser: Bye", "output": "So long"})[0] != "marked"


def test_an_instruction_with_an_input_of_its_own_is_no_dialogue() -> None:
    row = {"instruction": "User: Hello\nAssistant:", "input": "Write on.", "output": "Hi"}
    assert read(row)[0] == "alpaca"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Question: Which of these is red?", "response": "The rose."},
        {"prompt": "Summarise:\nUser: Hello\nAssistant: Hi", "response": "A greeting."},
        {"prompt": "User: Hello\nAssistant: Hi", "response": "A greeting."},
    ],
)
def test_a_prompt_that_does_not_wait_for_the_assistant_is_a_question(row: dict) -> None:
    assert read(row)[1] == [("user", row["prompt"]), ("assistant", row["response"])]


DOCUMENTS = {
    "question in the middle": "Notes on tea.\n\nQuestion: How hot?\nAnswer: Not quite boiling.\n",
    "a title before an FAQ": "Frequently asked\n\nQ: Are you open?\nA: Yes.\nQ: On Sunday?\nA: No.\n",
    "options": "Q: Which one is red?\nA: The rose\nB: The lily\nC: The fern\nAnswer: A\n",
    "interview": "Mary Poole: How did you begin?\nJ. Finch: By chance.\nMary Poole: And then?\nJ. Finch: I went on.",
    "play": "DOCTOR: Who knocks?\nPATIENT: A friend.\nNURSE: Let him in.\nNURSE: At once.\nDOCTOR: Enter.",
    "form": "Customer: Acme Ltd.\nAgent: J. Smith\nDate: 4 May\nAmount: 20",
    "short form": "Patient: Jane Roe\nDoctor: Finch",
    "call log": "Caller: 555-1234\nOperator: Jane\nCaller: 555-9876\nOperator: Bob\n",
    "access log": "User: ann\nAgent: Mozilla/5.0 (X11; Linux)\nUser: bob\nAgent: curl/8.0\n",
    "e-mail": "From: ann@example.org\nTo: bob@example.org\nSubject: Tea\n\nUser: please call.\nAssistant: see above.",
    "yaml": "user: admin\npassword: x\nhost: localhost\n",
    "yaml with both": "user: admin\nassistant: enabled\nport: 80\n",
    "yaml in a list": "- user: Hello\n- assistant: Hi\n",
    "code": "def turn(user: str, assistant: str) -> str:\n    return user\n\nuser: str = ''\nassistant: str = ''\n",
    "html": "<user>Ann</user>\n<bot>no</bot>\n",
    "an article on ChatML": "A turn has tokens.\n\n<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\nHi",
    "an article on Alpaca": "# Prompts\n\nWe write:\n\n### Instruction:\nx\n\n### Response:\ny\n",
    "fenced marks": "A template: ```\n### Human: x\n### Assistant: y\n```",
    "one speaker": "User: Hello\nUser: Anyone here?\n",
    "an open form": "Q: \nA: \n\nQ: \nA: \n",
    "inline words": "User: Hello Assistant: Hi",
    "two answers": "Q: Why?\nA: Because.\nA: Or not.\n",
    "begins with an answer": "Answer: Because.\nQuestion: Why?\nAnswer: So.\n",
    "a url": "User: https://example.org/a\n",
}


@pytest.mark.parametrize("text", DOCUMENTS.values(), ids=DOCUMENTS)
def test_a_document_that_looks_like_a_dialogue_stays_text(text: str) -> None:
    assert read({"text": text}) == ("text", [("text", text)], None)


def test_marks_inside_a_line_or_a_text_are_no_marks() -> None:
    assert messages("User: Write User: x\nAssistant: Say: Assistant: y") == [
        ("user", "Write User: x"),
        ("assistant", "Say: Assistant: y"),
    ]


def test_text_between_marks_is_kept_and_end_tokens_count_at_the_end_only() -> None:
    assert messages("<|user|>\n  a </s> b\n\n\n c </s>\n<|assistant|>\n```\n  x\n```</s>") == [
        ("user", "a </s> b\n\n\n c"),
        ("assistant", "```\n  x\n```"),
    ]


@pytest.mark.parametrize(
    ("user", "assistant"),
    [("Is it hot?", "No."), ("It hurts here.", "Rest a while."), ("It hurts when I walk up the stairs", "x" * 30)],
)
def test_a_single_exchange_of_names_that_forms_have_too_must_sound_like_speech(user: str, assistant: str) -> None:
    assert messages(f"Patient: {user}\nDoctor: {assistant}") == [("user", user), ("assistant", assistant)]
    assert read({"text": f"Patient: {user}\nDoctor: {assistant}\nRoom: 4"})[0] == "text"


def test_a_single_exchange_of_user_and_assistant_need_not() -> None:
    assert messages("user: Hello\nassistant: Hi") == HELLO
    assert messages("User: Hello\nAssistant: Hi\nNote: x\nNote: y") == [HELLO[0], ("assistant", "Hi\nNote: x\nNote: y")]


def test_bold_type_in_a_text_is_no_part_of_its_mark() -> None:
    assert messages("User:**Why** so?\nAssistant: **Because** so.\n**User:**Yes.") == [
        ("user", "**Why** so?"),
        ("assistant", "**Because** so."),
        ("user", "Yes."),
    ]


def test_speakers_of_a_chat_may_say_two_things_in_a_row() -> None:
    text = "Customer: Hello\nCustomer: Anyone?\nAgent: Hi\nCustomer: Thanks"
    assert [role for role, _ in messages(text)] == ["user", "user", "assistant", "user"]


def test_the_role_option_goes_before_a_mark() -> None:
    row = {"text": "<|im_start|>user\nHello<|im_end|><|im_start|>judge\nHm<|im_end|><|im_start|>assistant\nHi"}
    assert read(row, judge="system")[1] == [("user", "Hello"), ("system", "Hm"), ("assistant", "Hi")]
    away = turned_away(row)
    assert away.reason == "unknown-role"
    assert away.detail.startswith("turn 2 has the mark of 'judge'; expected one of user, human,")


def test_the_format_may_be_named_where_the_marks_leave_doubt() -> None:
    row = {"text": "Patient: Jane\nDoctor: Finch"}
    assert read(row)[0] == "text"
    assert read(row, "marked")[1] == [("user", "Jane"), ("assistant", "Finch")]
    assert read({"text": "User: Hello\nAssistant: Hi"}, "text")[1] == [("text", "User: Hello\nAssistant: Hi")]


def test_a_text_without_marks_does_not_fit_the_format_marked() -> None:
    away = turned_away({"text": "A page."}, "marked")
    assert (away.reason, away.detail) == (
        "bad-marks",
        "no text of the row begins with a speaker's mark and has one of both speakers",
    )
    assert turned_away(["Hello"], "marked").reason == "format-mismatch"


def test_rows_of_other_formats_stay_what_they_are_beside_a_rendered_text() -> None:
    text = "### Instruction:\nHello\n\n### Response:\nHi"
    assert detect_format({"instruction": "Hello", "input": "", "output": "Hi", "text": text}) == "alpaca"
    assert detect_format({"messages": [{"role": "user", "content": "x"}], "text": text}) == "openai"
    assert detect_format({"prompt": "Hello", "response": "Hi", "text": text}) == "prompt-response"
    assert detect_format({"chosen": "\n\nHuman: Hello\n\nAssistant: Hi"}) == "hh"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        (
            {"text": "User: Hello\nAssistant: Hi"},
            "`text` with speaker marks (User:/Assistant:) read as a dialogue, not as a document",
        ),
        ({"chat": "Q: Hello\nA: Hi"}, "`chat` with speaker marks (Q:/A:) read as a dialogue"),
        (
            {"prompt": "问：Hello\n答：", "response": "Hi"},
            "`prompt` with speaker marks (问：/答：) read as the turns before `response`",
        ),
        ({"question": "Hello", "context": "A", "answer": "Hi"}, "`context` read as part of the question"),
        ({"question": "Hello", "answer": "Hi"}, None),
        ({"title": "Hello", "ask": "A", "answer": "Hi"}, "title and ask joined into the question"),
        ({"data": ["Hello", "Hi"]}, "a list of strings read as alternating, the user first"),
        ({"input": ["Hello"], "output": ["Hi"]}, "lists of inputs and outputs read as turns of one dialogue"),
        (
            {"prompt": "Bye", "response": "So long", "history": [["Hello", "Hi"]]},
            "`history` read as the turns before the question; its answers are trained on, too",
        ),
        ({"messages": [{"role": "user", "content": "Hello"}]}, None),
        ({"text": "A page."}, None),
    ],
)
def test_a_sentence_says_which_of_two_readings_was_taken(row: dict, sentence: str | None) -> None:
    assert reading_of(detect_format(row), row) == sentence


def test_real_documents_are_not_taken_for_dialogues(shared: Path) -> None:
    wiki = (shared / "data/llamafactory/wiki_demo.txt").read_text(encoding="utf-8")
    texts = [wiki, *wiki.split("\n"), *wiki.split("\n\n")]
    with (shared / "data/llamafactory/c4_demo.jsonl").open(encoding="utf-8") as file:
        texts += [json.loads(line)["text"] for line in file]
    assert [text for text in texts if read_dialogue(text)] == []


@pytest.mark.parametrize(
    "text",
    [
        *("word " * 200_000, "\n" * 1_000_000, "** " * 300_000, "### " * 250_000, "<" * 1_000_000, "[" * 1_000_000),
        *("User: " + "word\n" * 200_000, "Customer: a\nAgent: " + " " * 1_000_000, "[INST]" + " " * 1_000_000),
        "USER: a ASSISTANT: b" + "</s>" * 250_000,
    ],
    ids=range(10),
)
def test_a_megabyte_of_anything_is_read_through(text: str) -> None:
    read_dialogue(text)


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=20).map(
    lambda text: text.strip(WHITE)
)
SAID = TEXT.filter(bool)
TURNS = st.lists(st.tuples(SAID, SAID), min_size=2, max_size=4)

# How each family writes a question and an answer.
TEMPLATES = {
    "<|im_start|>": "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n{}<|im_end|>\n",
    "<|start_header_id|>": "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n{}<|eot_id|>",
    "<start_of_turn>": "<start_of_turn>user\n{}<end_of_turn>\n<start_of_turn>model\n{}<end_of_turn>\n",
    "<|Human|>:/<|MOSS|>:": "<|Human|>: {}<eoh>\n<|MOSS|>: {}<eom>\n",
    "[Human]:/[MOSS]:": "[Human]: {}<eoh> [MOSS]: {}<eoa> ",
    "<|user|>/<|assistant|>": "<|user|>\n{}</s>\n<|assistant|>\n{}</s>\n",
    "<_user>/<_bot>": "<_user>\n{}\n<_bot>\n{}\n",
    "<human>:/<bot>:": "<human>: {}\n<bot>: {}\n",
    "[INST]": "<s>[INST] {} [/INST] {} </s>",
    "### Human:/### Assistant:": "### Human: {}### Assistant: {}",
    "### Instruction:/### Response:": "### Instruction:\n{}\n\n### Response:\n{}\n\n",
    "<reserved_106>/<reserved_107>": "<reserved_106>{}<reserved_107>{}",
    "[|Human|]/[|AI|]": "[|Human|]{}\n[|AI|]{}\n",
    "【用户】/【助手】": "【用户】：{}\n【助手】：{}\n",
    "[Round]": "[Round 1]\n\n问：{}\n\n答：{}\n\n",
    "USER:/ASSISTANT:": "USER: {} ASSISTANT: {}</s>",
}


@pytest.mark.parametrize("family", [*TAGS, VICUNA[1]], ids=lambda family: family.label)
@given(pairs=TURNS)
def test_what_is_written_with_tags_comes_back(family: Family, pairs: list[tuple[str, str]]) -> None:
    text = "".join(TEMPLATES[family.label].format(*pair) for pair in pairs)
    assume(len(family.mark.findall(text)) == 2 * len(pairs) and not holds_end(family, pairs))
    assert detect_format({"text": text}) == "marked"
    assert from_marked({"text": text}, ROLE_NAMES) == (messages_of(pairs), None)


@given(pair=st.sampled_from(ROLE_PAIRS), pairs=TURNS, colon=st.sampled_from([":", "：", " : ", ":\n"]))
def test_what_is_written_with_names_comes_back(pair: tuple[str, str], pairs: list[tuple[str, str]], colon: str) -> None:
    family = line_family(pair)
    names = [name.upper() if len(name) == 1 else name.title() for name in pair]
    *before, (asked, answered) = pairs
    pairs = [*before, (asked + "?", answered)]
    text = "".join(f"{names[0]}{colon}{question}\n{names[1]}{colon}{answer}\n" for question, answer in pairs)
    assume(not re.search("[:：]", "".join(question + answer for question, answer in pairs)))
    assume(not holds_end(family, pairs))
    assert detect_format({"text": text}) == "marked"
    assert from_marked({"text": text}, ROLE_NAMES) == (messages_of(pairs), None)


@given(
    st.lists(st.sampled_from([*"\n \n:：*[]<>#", "User", "Assistant", "Q", "A", *map("{}".format, TEMPLATES.values())]))
)
def test_no_text_breaks_the_reader(pieces: list[str]) -> None:
    row = {"text": "".join(pieces)}
    try:
        name, _, _ = read(row)
        reading_of(name, row)
        read(row, "marked")
    except TurnedAway as away:
        assert away.reason in FIXES


def holds_end(family: Family, pairs: list[tuple[str, str]]) -> bool:
    return any(end in text for end in family.ends for pair in pairs for text in pair)


@pytest.mark.parametrize(
    "pair",
    [
        *[("Student", "Teacher"), ("caller", "operator"), ("学生", "老师"), ("提问者", "回答者"), ("客户", "销售")],
        *[("Client:", "Therapist:"), (" user ", " bot "), ("[User]", "[Assistant]"), ("用户：", "助手：")],
    ],
)
def test_names_of_speakers_may_be_decorated(pair: tuple[str, str]) -> None:
    turns = [{"role": "System:", "content": "Be brief."}, *({"role": name, "content": name} for name in pair)]
    assert read({"dialogue": turns})[1] == [BE, ("user", pair[0]), ("assistant", pair[1])]


def test_numbered_speakers_are_not_guessed() -> None:
    turns = [{"speaker": "speaker_1", "text": "Hello"}, {"speaker": "speaker_2", "text": "Hi"}]
    assert turned_away({"dialogue": turns}).reason == "unknown-role"


def messages_of(pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [message for question, answer in pairs for message in (("user", question), ("assistant", answer))]
