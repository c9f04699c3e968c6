"""Families of speaker marks: how each writes who speaks in a dialogue that is one string. Tables only.

A family is a pattern whose last group is the speaker's name, the part that each name plays, and the tokens that may end
a turn. Parts are roles, or one of these: `more` is joined to the question before it, `thoughts` become the next
answer's reasoning, `commands` are calls in no known notation. White space around a mark is no part of its pattern: it
is stripped from the pieces between marks, in linear time.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from dataprep.stages.normalize.role_pairs import ROLE_PAIRS, SAID_PAIRS


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Family:
    """One way to mark speakers.

    `hint` is a text that every dialogue with a system text before its first mark holds; "" where none may stand there.
    `strict` means that user and assistant must alternate; `doubtful` that ordinary documents look alike.
    """

    label: str
    mark: re.Pattern[str]
    parts: Mapping[str, str]
    ends: tuple[str, ...] = ()
    hint: str = ""
    strict: bool = False
    doubtful: bool = False


_USER = dict.fromkeys(("user", "human", "prompter"), "user")
_ASSISTANT = dict.fromkeys(("assistant", "bot", "ai", "model", "chatbot", "gpt"), "assistant")
_SYSTEM = {"system": "system", "developer": "system"}
_TOOL = dict.fromkeys(("tool", "function", "observation", "ipython", "tool_response"), "tool")
_PARTS = _USER | _ASSISTANT | _SYSTEM | _TOOL
_MOSS = {"user": "user", "human": "user", "moss": "assistant", "bot": "assistant", "assistant": "assistant"}
_MOSS |= {"system": "system", "innerthoughts": "thoughts", "commands": "commands"}
_MOSS |= {"results": "tool", "toolresponses": "tool"}
_LLAMA2 = {"[inst]<<sys>>": "system", "<</sys>>": "user", "[inst]": "user", "[/inst]": "assistant"}
_ALPACA = {"instruction": "user", "input": "more", "context": "more", "response": "assistant", "output": "assistant"}
_BAICHUAN = {"106": "user", "107": "assistant", "102": "user", "103": "assistant"}
_VICUNA = {"system": "system", "user": "user", "assistant": "assistant", "functionresponse": "tool"}

_BRACKETED = dict.fromkeys(("用户", "来访者", "患者", "客户", "求助者", "提问者", "问"), "user")
_BRACKETED |= dict.fromkeys(("助手", "咨询师", "心理咨询师", "医生", "客服", "回答者", "答"), "assistant")
_BRACKETED |= {"系统": "system"}

_END = "<|endoftext|>"
_ENDS = ("</s>", _END, "<|end|>", "<|eot|>", "<|end_of_text|>", "<|im_end|>")

# Families whose marks are no words of a language; of those that fit, the first counts.
TAGS = (
    Family(
        label="<|im_start|>",
        mark=re.compile(r"<\|im_start\|>[ ]?([^\s<>|:]{1,40})(?=[\s<]|\Z)"),
        parts=_PARTS,
        ends=("<|im_end|>", _END),
    ),
    Family(
        label="<|start_header_id|>",
        mark=re.compile(
            r"<\|(?:start_header_id|header_start|start_of_role)\|>([^\s<>|]{1,40})"
            r"<\|(?:end_header_id|header_end|end_of_role)\|>"
        ),
        parts=_PARTS,
        ends=("<|eot_id|>", "<|eom_id|>", "<|eot|>", "<|end_of_text|>"),
    ),
    Family(
        label="<start_of_turn>",
        mark=re.compile(r"<start_of_turn>([^\s<>|]{1,40})(?=[\s<]|\Z)"),
        parts=_PARTS,
        ends=("<end_of_turn>", "<eos>"),
    ),
    Family(
        label="<|Human|>:/<|MOSS|>:",
        mark=re.compile(
            r"<\|(?:(?=(?:Human|MOSS|Inner Thoughts)\|>)|(?=[^|]{1,20}\|>[:：]))"
            r"(Human|User|Inner Thoughts|Commands|Tool Responses|Results|MOSS|Bot|System)\|>[:：]?"
        ),
        parts=_MOSS,
        ends=("<eoh>", "<eom>", "<eoa>", "<eot>", "<eoc>", "<eor>", "<eos>"),
        hint="|>",
    ),
    Family(
        label="[Human]:/[MOSS]:",
        mark=re.compile(r"\[(Human|MOSS|Inner Thoughts|Commands|Results)\][:：]"),
        parts=_MOSS,
        ends=("<eoh>", "<eom>", "<eoa>", "<eot>", "<eoc>", "<eor>"),
        hint="[Human]",
    ),
    Family(
        label="<|user|>/<|assistant|>",
        mark=re.compile(
            r"<[|｜](user|prompter|human|assistant|bot|model|system|tool|observation|function)[|｜]>", re.IGNORECASE
        ),
        parts=_PARTS,
        ends=(*_ENDS, "<｜end▁of▁sentence｜>"),
        hint="<｜User｜>",
    ),
    Family(label="<_user>/<_bot>", mark=re.compile(r"<_(user|human|bot|assistant|system)>"), parts=_PARTS, ends=_ENDS),
    Family(
        label="<human>:/<bot>:",
        mark=re.compile(r"<(user|human|bot|assistant|system)>[:：]", re.IGNORECASE),
        parts=_PARTS,
        ends=_ENDS,
        hint="<human>:",
    ),
    Family(
        label="[INST]",
        mark=re.compile(r"(?:<s>[ \n]?)?(\[INST\]\s{0,4}<<SYS>>|<</SYS>>|\[/?INST\])"),
        parts=_LLAMA2,
        ends=("</s>",),
    ),
    Family(
        label="### Human:/### Assistant:",
        mark=re.compile(r"###[ ]?(Human|User|Assistant|AI|Bot|System)[:：]", re.IGNORECASE),
        parts=_PARTS,
        ends=_ENDS,
        hint="###",
    ),
    Family(
        label="### Instruction:/### Response:",
        mark=re.compile(r"^###[ ]?(Instruction|Input|Context|Response|Output)[:：]", re.IGNORECASE | re.MULTILINE),
        parts=_ALPACA,
        ends=(*_ENDS, "### End"),
        hint="###",
    ),
    Family(
        label="<reserved_106>/<reserved_107>",
        mark=re.compile(r"<reserved_(10[2367])>"),
        parts=_BAICHUAN,
        ends=_ENDS,
        hint="<reserved_10",
    ),
    Family(
        label="[|Human|]/[|AI|]",
        mark=re.compile(r"\[\|(Human|User|AI|Assistant|System)\|\]"),
        parts=_PARTS,
        ends=_ENDS,
        hint="[|Human|]",
    ),
    Family(
        label="【用户】/【助手】",
        mark=re.compile(rf"^[ \t]{{0,3}}【({'|'.join(_BRACKETED)})】[:：]?", re.MULTILINE),
        parts=_BRACKETED,
    ),
    Family(
        label="[Round]",
        mark=re.compile(r"^(?:(?:\[Round \d{1,4}\]|##第 ?\d{1,4} ?轮##)\s{0,4})?(问|答|Q|A)[:：]", re.MULTILINE),
        parts={"问": "user", "q": "user", "答": "assistant", "a": "assistant"},
        strict=True,
    ),
)

# Upper-case names, at lines' starts or all on one line: Vicuna, and Glaive with its FUNCTION RESPONSE.
VICUNA = (
    Family(
        label="USER:/ASSISTANT:",
        mark=re.compile(r"(?:^|(?<=</s>)|(?<=text\|>))[ ]?(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE):", re.MULTILINE),
        parts=_VICUNA,
        ends=("</s>", _END),
        hint="USER:",
        strict=True,
    ),
    Family(
        label="USER:/ASSISTANT:",
        mark=re.compile(r"(?<![^\s>])(SYSTEM|USER|ASSISTANT|FUNCTION RESPONSE):"),
        parts=_VICUNA,
        ends=("</s>", _END),
        hint="USER:",
        strict=True,
    ),
)

# A text before the first mark of Alpaca's own words says nothing but what the marks say.
PREAMBLES = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.",
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.",
)

# Names that stand before a colon in hardly anything but a dialogue; those of all other pairs are doubtful.
_CHATS = frozenset((user, name) for user in ("user", "human") for name in ("assistant", "bot", "ai", "chatbot", "gpt"))
_CLEAR = SAID_PAIRS | _CHATS | {("用户", "助手"), ("ユーザー", "アシスタント"), ("사용자", "어시스턴트")}


@cache
def line_family(pair: tuple[str, str]) -> Family:
    """Give the family of a pair of names at lines' starts: `Client: …`, `**Client:** …`, `[Client]: …`, `来访者：…`."""
    parts = {pair[0]: "user", pair[1]: "assistant"} | ({"system": "system"} if pair in _CHATS else {})
    names = "|".join(name.upper() if len(name) == 1 else f"(?i:{name})" for name in parts)
    return Family(
        label="/".join(_shown(name) for name in pair),
        mark=re.compile(
            rf"^[ \t]{{0,3}}(\*\*)?\[?({names})\]?(?(1)(?:\*\*[ \t]?[:：]|[ \t]?[:：]\*\*)|[ \t]?[:：])", re.MULTILINE
        ),
        parts=parts,
        ends=("</s>", _END),
        strict=pair in SAID_PAIRS,
        doubtful=pair not in _CLEAR,
    )


@cache
def line_pairs() -> dict[str, list[tuple[str, str]]]:
    """Give for each name that may stand before a colon the pairs that it is in, the clearest first."""
    found: dict[str, list[tuple[str, str]]] = {"system": [pair for pair in ROLE_PAIRS if pair in _CHATS]}
    for pair in sorted(ROLE_PAIRS, key=lambda pair: pair not in _CLEAR):
        for name in pair:
            found.setdefault(name, []).append(pair)
    return found


def _shown(name: str) -> str:
    if not name.isascii():
        return f"{name}："
    return f"{name.upper() if name in ('q', 'a', 'ai', 'gpt') else name.title()}:"
