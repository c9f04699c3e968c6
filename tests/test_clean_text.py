"""Text steps: literal conversations in, literal conversations out."""

from typing import Any

import orjson
import pytest

from dataprep.stages.clean.clean import make_cleaner
from dataprep.stages.clean.cleaned import Cleaned
from dataprep.stages.clean.steps import STEPS
from dataprep.stages.normalize.reasons import FIXES, TurnedAway

OFF = dict.fromkeys(STEPS, "off")
FENCE = "```"


def cleaned(messages: list[tuple[Any, ...]], **steps: str) -> Cleaned | None:
    settled = OFF | {name.replace("_", "-"): value for name, value in steps.items()}
    return make_cleaner(settled)(messages, orjson.dumps((messages, None)))


def asked(answer: str, question: str = "Why?") -> list[tuple[Any, ...]]:
    return [("user", question), ("assistant", answer)]


def fixed(step: str, answer: str, question: str = "Why?") -> str:
    found = make_cleaner(OFF | {step: "fix"})(asked(answer, question), orjson.dumps((asked(answer, question), None)))
    if found is None:
        return answer
    assert found.changed == (step,) and found.seen == () and found.messages[0] == ("user", question)
    return found.messages[1][1]


MENDED = [
    ("html", "Salt&nbsp;&amp; pepper &lt;1 g&gt; it&#39;s &#x27;fine&#x27;", "Salt & pepper <1 g> it's 'fine'"),
    ("html", "&amp;amp;quot;twice&amp;amp;quot;", '"twice"'),
    ("html", "One<br>two<br/>three <BR />\nfour", "One\ntwo\nthree\nfour"),
    ("html", "<p>One.</p><p class='x'>Two.</p>\n\n<p>Three.</p>", "One.\n\nTwo.\n\nThree."),
    ("html", "<ul><li>tea</li><li>milk</li></ul>", "tea\nmilk"),
    ("html", 'See <a href="https://example.org/?a=1&b=2">the <b>guide</b></a>.', "See the guide."),
    ("html", '<font color=red>红</font><span style="x">色</span>', "红色"),
    ("html", "用&nbsp;空格&hellip;", "用 空格…"),
    ("replacement-chars", "Don\ufffdt 你\ufffd\ufffd好", "Dont 你好"),
    ("control-chars", "a\x00b\x07c\x7fd\x81e\tf\ng\rh", "abcde\tf\ng\rh"),
    ("control-chars", "one\x0btwo\x0cthree", "one\ntwo\nthree"),
    ("control-chars", "don\x92t\x85 \x93yes\x94\x81", "don’t… “yes”"),
    ("control-chars", "Ã\x89tÃ© â\x80\x99 ð\x9f\x98\x80 ä½\xa0å¥½ é\x9b\x81", "Été ’ 😀 你好 雁"),
    ("control-chars", "\x1b[1;31mred\x1b[0m", "red"),
    ("control-chars", f"{FENCE}\na\x08b\n{FENCE}", f"{FENCE}\nab\n{FENCE}"),
    ("control-tokens", "Fine.<|im_end|>\n<|endoftext|>", "Fine.\n"),
    ("control-tokens", "<|im_start|>assistant\nFine.<|im_end|>", "Fine."),
    ("control-tokens", "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>", "Hi"),
    ("control-tokens", "<start_of_turn>model\nHi<end_of_turn>", "Hi"),
    ("control-tokens", "<s>[INST] <<SYS>>Be kind<</SYS>> Hi [/INST] Hello</s>", " Be kind Hi  Hello"),
    ("control-tokens", "你好<eoh><｜end▁of▁sentence｜><reserved_106>", "你好"),
    ("control-tokens", "Yes.</s>", "Yes."),
    ("spaced-chinese", "你 好 ， 我 今 天 很 开 心 。", "你好，我今天很开心。"),
    ("spaced-chinese", "我们 今天 去 公园 散步 吧 ， 好 不 好", "我们今天去公园散步吧，好不好"),
    ("spaced-chinese", "请 用 Python 写 一 个 函 数 吧", "请用 Python 写一个函数吧"),
    ("spaces", "a\u00a0b\u2003c\u202fd\u200be\ufefff\u2060g", "a b c defg"),
    ("spaces", "one\r\ntwo\rthree\u2028four\u2029five", "one\ntwo\nthree\nfour\nfive"),
    ("spaces", "one \ntwo\t\nthree   \n \nfour\u3000\nfive", "one\ntwo\nthree\n\nfour\nfive"),
    ("spaces", "one\n\n\n\n\ntwo\n\n\nthree", "one\n\ntwo\n\n\nthree"),
    ("spaces", "  \n text \n ", "text"),
    ("spaces", "好的。\u3000", "好的。"),
]


@pytest.mark.parametrize(("step", "answer", "expected"), MENDED)
def test_fix_mends_a_text(step: str, answer: str, expected: str) -> None:
    assert fixed(step, answer) == expected


@pytest.mark.parametrize(("step", "answer"), [(step, answer) for step, answer, _ in MENDED])
def test_count_sees_what_fix_mends_and_changes_nothing(step: str, answer: str) -> None:
    messages = asked(answer)
    found = make_cleaner(OFF | {step: "count"})(messages, orjson.dumps((messages, None)))
    assert found is not None
    assert found.messages is messages and found.changed == () and found.seen == (step,)


@pytest.mark.parametrize(("step", "answer"), [(step, answer) for step, answer, _ in MENDED if step != "spaces"])
def test_drop_turns_away_what_fix_mends(step: str, answer: str) -> None:
    with pytest.raises(TurnedAway, match=r"^message 2 holds ") as caught:
        make_cleaner(OFF | {step: "drop"})(asked(answer), orjson.dumps((asked(answer), None)))
    assert caught.value.reason == step and step in FIXES


LEFT = [
    ("html", "AT&T, R&D; a && b; ?a=1&b=2; &nosuchthing; &copy that"),
    ("html", "1 < 2, x<y and z>w, List<i> and <user name>"),
    ("html", "Use `&nbsp;` or:\n```\n<br>&amp;<p>\n```"),
    ("html", "In HTML, <br> breaks a line and &nbsp; is a space."),
    ("html", "<html><body><p>Hi</p></body></html>"),
    ("html", "Write <p> where the number of people stands."),
    ("html", "an open <b> alone"),
    ("control-chars", "\t\r\n é ü · 你好 😀"),
    ("control-tokens", "`<|im_end|>` ends a turn.\n```\n</s>[INST]\n```"),
    ("control-tokens", "The <s>old</s> new price; a <| b; [INS]; <eohippus>"),
    ("spaced-chinese", "苹果 香蕉 橘子"),
    ("spaced-chinese", "春天来了，花开了。 我们 出去走走，看看外面的世界，感受一下大自然的气息。"),
    ("spaces", "\u3000\u3000从前有一座山。\n\u3000\u3000山里有一座庙。"),
    ("spaces", "👨\u200d👩\u200d👧 می\u200cخواهم"),
    ("spaces", "One line  \nbroken as Markdown does.\n\n\nMore."),
    ("spaces", f"{FENCE}py\nx = 1   \n\n\n\n\ny = '\u00a0'\n{FENCE}"),
]


@pytest.mark.parametrize(("step", "answer"), LEFT)
def test_what_belongs_in_a_text_is_not_even_seen(step: str, answer: str) -> None:
    messages = asked(answer)
    for value in ("count", "fix"):
        assert make_cleaner(OFF | {step: value})(messages, orjson.dumps((messages, None))) is None


def test_markup_is_left_where_the_question_is_about_markup() -> None:
    assert fixed("html", "Write <br> or &lt;br&gt;.", "How do I break a line in HTML?") == "Write <br> or &lt;br&gt;."


def test_chinese_is_joined_where_the_conversation_as_a_whole_is_spaced() -> None:
    messages = [("user", "在 吗"), ("assistant", "在 的"), ("user", "去 哪 儿 玩"), ("assistant", "都 行 啊")]
    found = cleaned(messages, spaced_chinese="fix")
    assert found is not None
    assert [message[1] for message in found.messages] == ["在吗", "在的", "去哪儿玩", "都行啊"]


@pytest.mark.parametrize(
    "text", ["I am {{name}}.", "我是{{ author }}", "Dear <NAME>,", "[EMAIL]", "NAME_1 said", "[PHONE]"]
)
def test_placeholders_are_counted_or_turn_away(text: str) -> None:
    found = cleaned(asked(text), placeholders="count")
    assert found is not None and found.seen == ("placeholders",)
    with pytest.raises(TurnedAway) as caught:
        cleaned(asked(text), placeholders="drop")
    assert caught.value.reason == "placeholders"


@pytest.mark.parametrize(
    "text", ["`{{name}}`", "{{ user.name | upper }}", "[Your Name]", "Dict[NAMES]", "FILE_NAME_1", "<name>", "{name}"]
)
def test_what_only_looks_like_a_placeholder_is_left(text: str) -> None:
    assert cleaned(asked(text), placeholders="drop") is None


def test_reasoning_is_mended_and_tool_outputs_and_arguments_are_not() -> None:
    call = (("1", "find", '{"q": "a&amp;b \\u0007"}'),)
    messages = [
        ("user", "Find it"),
        ("assistant", "", "think&nbsp;first", call),
        ("tool", "<p>one</p>&amp;\x07 ", None, None, None, "1"),
        ("assistant", "Done&amp;dusted ", "so&nbsp;then", None, None, None, True),
    ]
    found = cleaned(messages, html="fix", control_chars="fix", spaces="fix", control_tokens="fix")
    assert found is not None and found.changed == ("html", "control-chars", "spaces")
    assert found.messages == [
        ("user", "Find it"),
        ("assistant", "", "think first", call),
        ("tool", "<p>one</p>&amp; ", None, None, None, "1"),
        ("assistant", "Done&dusted", "so then", None, None, None, True),
    ]


def test_reasoning_of_nothing_but_spaces_goes() -> None:
    found = cleaned([("user", "a"), ("assistant", "b", " \u200b ")], spaces="fix")
    assert found is not None and found.messages == [("user", "a"), ("assistant", "b")]


def test_a_document_is_mended_and_keeps_its_only_message() -> None:
    found = cleaned([("text", "a \nb")], spaces="fix", last_role="fix", empty_turns="fix", first_role="fix")
    assert found is not None and found.messages == [("text", "a\nb")]


def test_what_one_step_uncovers_another_mends() -> None:
    found = cleaned(asked("a &lt;|im_end|&gt;&nbsp;"), html="fix", control_tokens="fix", spaces="fix")
    assert found is not None and found.messages[1] == ("assistant", "a")


def test_an_answer_that_was_only_a_control_token_goes_with_its_question() -> None:
    messages = [*asked("Well."), *asked("<|endoftext|>")]
    found = cleaned(messages, control_tokens="fix", empty_turns="fix")
    assert found is not None and found.messages == asked("Well.")
    assert found.changed == ("control-tokens", "empty-turns")


def test_many_spaces_take_no_longer_than_many_letters() -> None:
    for text in (
        " " * 50_000 + "x",
        "<a " * 20_000,
        "&amp" * 20_000,
        "`" * 20_001,
        "<p " + "a=b " * 10_000,
        "\n" * 50_000,
    ):
        cleaned(asked(f"<br>{text}x"), **dict.fromkeys(("html", "spaces", "control_tokens", "spaced_chinese"), "fix"))
