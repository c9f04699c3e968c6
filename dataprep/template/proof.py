"""A probe proven on a template: what the build makes of it, held against transformers and the messages themselves.

Shown on real ids, with nothing of the build's own way to them: (1) the ids are `apply_chat_template`'s; (2) before each
answer's targets stands what `apply_chat_template(messages[:k], add_generation_prompt=True)` gives, or the difference
has a name; (3) the targets decode to that message's texts and an end token, and to no text of another message; (4)
where the template has `{% generation %}` marks, how transformers' own mask differs.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from os.path import commonprefix
from typing import Any

from dataprep.stages.tracing import END_ADDED
from dataprep.template.probes import Message, Probe
from dataprep.template.subject import OFFICIAL_ERRORS, Subject

PROVEN = "proven"
TURNED_AWAY = "turned away"  # by the build, with a reason of its ledger
LEFT_OUT = "left out"  # turned away, too: the template doesn't render a text or a call, or moves it behind the next
UNSUPPORTED = "unsupported"  # the template itself refuses
WRONG = "wrong"  # a check failed
FAILED = "failed"  # it could not be tried: a time-out, or an error of the build

# An answer's start: <think></think>, [THINK][/THINK], <|channel>thought<channel|> …
EMPTY_THOUGHT = re.compile(
    r"\s*[<\[◁][\w:|]*think\w*[>\]▷|]+\s*[<\[◁]/[\w:|]*think|\s*<\|channel>thought\s*<channel\|>", re.I
)

_NEXT: tuple[Message, ...] = ({"role": "user", "content": "And then?"},)
_THOUGHT = 40  # characters that the marks around an empty thought have at most
_WORDS = 100  # characters shown of what a template says
_MARKED = re.compile(r"\{%-?\+?\s*generation\s*-?\+?%\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnProof:
    """One answer's targets."""

    message: int
    text: str  # decoded targets
    prompt: str  # "" where inference gives what stands before them, else how that differs


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a probe shows of a template."""

    kind: str
    detail: str = ""
    notes: list[str] = field(default_factory=list)  # named differences of what is proven
    turns: list[TurnProof] = field(default_factory=list)
    marks: str = ""  # how transformers' mask differs; "" where the template marks nothing


def prove(subject: Subject, probe: Probe) -> Outcome:
    """Try a probe; whatever a template does becomes an outcome."""
    try:
        ids = subject.official_ids(probe.messages(), probe.tools())
    except OFFICIAL_ERRORS as error:
        return Outcome(kind=UNSUPPORTED, detail=words(error))
    try:
        example = subject.example(probe)
        if example["reason"] is not None:
            of_template = example["reason"] in ("message-dropped", "turn-not-found") and _leaves_out(subject, probe)
            kind = LEFT_OUT if of_template else TURNED_AWAY
            return Outcome(kind=kind, detail=f"{example['reason']}: {example['detail'][:_WORDS]}")
        return _Proof(subject, probe, ids, example).outcome()
    except Exception as error:  # an error of ours must not hide what other probes show
        return Outcome(kind=FAILED, detail=f"{type(error).__name__}: {words(error)}")


def _leaves_out(subject: Subject, probe: Probe) -> bool:
    """Whether the official rendering lacks a text of a message or a tool call, or has it behind a later message's."""
    whole, reached = subject.official_text(probe.messages(), probe.tools()), 0
    for message in probe.messages():
        calls = [call["function"]["arguments"].values() for call in message.get("tool_calls", ())]
        texts = [message["content"].strip(), *(each for values in calls for each in values if isinstance(each, str))]
        if any(text not in whole[reached:] for text in texts):
            return True
        reached = max(reached, whole.find(texts[0], reached))
    return False


def words(error: BaseException) -> str:
    """The first line of what an error says, short."""
    line = (str(error).strip().split("\n") or [""])[0] or type(error).__name__
    return line if len(line) <= _WORDS else line[: _WORDS - 1] + "…"


def _closes_thought(before: str, text: str) -> bool:
    """Whether targets begin by closing a thought that was opened right before them."""
    found = EMPTY_THOUGHT.search(before[-_THOUGHT:] + text[:_THOUGHT])
    return found is not None and found.start() <= min(len(before), _THOUGHT) < found.end()


def _stripped(text: str) -> list[str]:
    """What a template may leave of a text whose blanks it takes off, the longest first."""
    ways = [text.rstrip("\n"), text.lstrip("\n"), text.strip("\n"), text.rstrip(), text.lstrip(), text.strip()]
    return sorted(dict.fromkeys(ways), key=len, reverse=True)


class _Proof:
    """One kept probe: its official ids, and the build's example of it."""

    def __init__(self, subject: Subject, probe: Probe, ids: list[int], example: dict[str, Any]) -> None:
        self._subject, self._probe, self._ids, self._example = subject, probe, ids, example
        self._messages, self._tools = probe.messages(), probe.tools()
        self._whole = subject.official_text(self._messages, self._tools)
        self._added_end = ""  # behind the official rendering
        self._problems: list[str] = []
        self._notes: list[str] = []

    def outcome(self) -> Outcome:
        self._notes += self._example["notes"]
        for note in self._example["notes"]:
            if note.startswith(END_ADDED):
                self._added_end = note.removeprefix(f"{END_ADDED} ")
                self._whole += self._added_end
                self._ids = self._subject.official(self._whole, add_special_tokens=False)["input_ids"]
        if self._example["input_ids"] != self._ids:
            return Outcome(kind=WRONG, detail="ids differ from apply_chat_template's")
        if self._tools and "weather_at" not in self._context():
            self._notes.append("the tools' definitions are left out")
        turns = list(self._turns())
        marks = self._marks()
        kind = WRONG if self._problems else PROVEN
        return Outcome(
            kind=kind,
            detail="; ".join(self._problems),
            notes=list(dict.fromkeys(self._notes)),
            turns=turns,
            marks=marks,
        )

    def _context(self) -> str:
        pairs = zip(self._ids, self._example["assistant_masks"], strict=True)
        return self._subject.decode([number for number, target in pairs if not target])

    def _turns(self) -> Iterator[TurnProof]:
        mask, ends = self._example["assistant_masks"], self._example["turn_ends"]
        answers = [number for number, message in enumerate(self._messages) if message["role"] == "assistant"]
        seen = 0
        for message, end in zip(answers, ends, strict=True):
            start = end
            while start > seen and mask[start - 1]:
                start -= 1
            if any(mask[seen:start]):
                self._problems.append(f"targets before answer {message + 1}")
            seen = end
            if start == end:
                why = (
                    ", ".join(what for what, _ in self._example["left_out_turns"]) or "it ends otherwise than the last"
                )
                self._notes.append(f"an earlier answer isn't trained on: {why}")
                continue
            yield self._turn(message, start, end)
        if any(mask[seen:]):
            self._problems.append("targets after the last answer")

    def _turn(self, message: int, start: int, end: int) -> TurnProof:
        targets = self._ids[start:end]
        text = self._subject.decode(targets)
        if targets[-1] not in self._subject.bundle.control_ids:
            self._problems.append(f"answer {message + 1} ends without a control token")
        self._check_own(message, text)
        self._check_others(message, text)
        self._check_tail(message, text, self._text_before(start))
        if EMPTY_THOUGHT.match(text) or _closes_thought(self._text_before(start), text):
            self._notes.append("an empty think block is trained on")
        header = self._added(self._messages[:1], prompt=True).strip()
        if header and text.startswith(header):
            self._notes.append("the header of an answer is trained on: inference's prompt leaves it out there")
        prompt = self._prompt(message, start)
        if prompt:
            self._notes.append(prompt)
        return TurnProof(message=message, text=text, prompt=prompt)

    def _check_own(self, number: int, text: str) -> None:
        """The message's texts stand in its targets, in order."""
        message, place = self._messages[number], 0
        reasoning = message.get("reasoning_content", "")
        if reasoning and reasoning not in self._whole:
            self._notes.append("reasoning is left out")
            reasoning = ""
        for what, own in (("reasoning", reasoning), ("content", message["content"])):
            found = text.find(own, place)
            shown = own if found >= 0 else next((each for each in _stripped(own) if each in text[place:]), own.strip())
            if shown != own and self._strips(number, shown):
                self._notes.append("blanks at the ends of answers are stripped")
                found = text.find(shown, place)
            if found < 0:
                self._problems.append(f"the {what} of answer {number + 1} isn't in its targets")
            place = max(place, found + len(shown))
        for call in message.get("tool_calls", ()):
            function = call["function"]
            wanted = [function["name"], *map(str, function["arguments"].values())]
            if not all(part in text for part in wanted):
                self._problems.append(f"a tool call of answer {number + 1} isn't in its targets")

    def _strips(self, number: int, shown: str) -> bool:
        """Whether the template itself takes the blanks off: it writes the same for a content without them."""
        messages = [*self._messages]
        messages[number] = {**messages[number], "content": shown}
        try:
            return self._subject.official_text(messages, self._tools) + self._added_end == self._whole
        except OFFICIAL_ERRORS:
            return False

    def _check_others(self, number: int, text: str) -> None:
        for other, message in enumerate(self._messages):
            texts = (message["content"].strip(), message.get("reasoning_content", ""))
            if other != number and any(each and each in text for each in texts):
                self._problems.append(f"text of message {other + 1} is in the targets of answer {number + 1}")

    def _prompt(self, message: int, start: int) -> str:
        """How what inference gives the model differs from what stands before a turn's targets; "" where it doesn't."""
        before = self._messages[:message]
        try:
            inference = self._subject.official_text(before, self._tools, prompt=True)
            if self._subject.official_ids(before, self._tools, prompt=True) == self._ids[:start]:
                return ""
        except OFFICIAL_ERRORS as error:
            return f"inference can't ask for it: {words(error)}"
        for name in self._subject.arguments():
            for value in (False, True):
                if self._official_ids(before, {name: value}) == self._ids[:start]:
                    return f"inference gives it with {name}={value}"
        return self._named(inference, start)

    def _check_tail(self, number: int, text: str, before: str) -> None:
        """Nothing that opens a turn stands behind the message's last text, but for one token that may end this one."""
        own = [self._messages[number]["content"].strip()]
        for call in self._messages[number].get("tool_calls", ()):
            own += [call["function"]["name"], *map(str, call["function"]["arguments"].values())]
        places = [text.rfind(each) + len(each) for each in own if each and each in text]
        behind = text[max(places, default=0) :]
        tail = self._controls(behind)
        header = self._controls(self._added(self._messages[:number], prompt=True))[:1]
        follows = self._controls(self._added(self._messages[: number + 1], further=_NEXT))[:1]
        if not header:  # the control tokens between the message before and this one
            earlier = [message["content"].strip() for message in self._messages[:number]]
            places = [before.rfind(each) + len(each) for each in earlier if each]
            follows = self._controls(before[max(places, default=0) :])[1:]
        opens = any(token in header for token in tail) and not self._stays(number, before + text, behind, header[0])
        rest = self._controls(self._whole.removeprefix(before + text)) if number == len(self._messages) - 1 else []
        if header and rest and rest[:1] != header and self._whole.startswith(before + text):
            self._problems.append(f"answer {number + 1} goes on with {rest[0]!r} behind its targets")
        if opens or any(token in follows for token in tail[1:] if token not in header):
            self._problems.append(f"what opens the next turn is in the targets of answer {number + 1}")

    def _stays(self, number: int, shown: str, behind: str, opening: str) -> bool:
        """Whether a token that opens turns stands within one: text follows it, whatever the next message is."""
        named = behind[behind.rfind(opening) :]
        for token in self._controls(named):
            named = named.replace(token, "")
        try:
            longer = self._subject.official_text([*self._messages[: number + 1], *_NEXT], self._tools)
        except OFFICIAL_ERRORS:
            return False
        return bool(named.strip()) and longer.startswith(shown)

    def _controls(self, text: str) -> list[str]:
        """The control tokens in a text, in order; `control_tokens` has the longest first."""
        pattern = "|".join(map(re.escape, self._subject.bundle.control_tokens))
        return re.findall(pattern, text) if pattern else []

    def _added(self, messages: list[Message], further: tuple[Message, ...] = (), prompt: bool = False) -> str:
        """What a generation prompt or further messages add to some; "" where it isn't a mere addition."""
        try:
            bare = self._subject.official_text(messages, self._tools)
            longer = self._subject.official_text([*messages, *further], self._tools, prompt=prompt)
        except OFFICIAL_ERRORS:
            return ""
        return longer.removeprefix(bare) if longer.startswith(bare) else ""

    def _official_ids(self, before: list[Message], further: dict[str, Any]) -> list[int] | None:
        try:
            return self._subject.official_ids(before, self._tools, True, further)
        except OFFICIAL_ERRORS:
            return None

    def _bounds(self) -> list[tuple[int, int]]:
        encoded = self._subject.official(self._whole, add_special_tokens=False, return_offsets_mapping=True)
        return encoded["offset_mapping"]

    def _text_before(self, start: int) -> str:
        return self._whole[: self._bounds()[start][0]]

    def _named(self, inference: str, start: int) -> str:
        first, last = self._bounds()[start - 1]
        training = self._text_before(start)
        if inference == training:
            return "tokens differ where the prompt ends"
        if training.startswith(inference) and first < len(inference) < last:
            return f"inference's prompt ends inside the token {self._whole[first:last]!r}"
        if inference.startswith(training):
            return f"inference's prompt goes on with {inference[len(training) :]!r}"
        if training.startswith(inference):
            return f"training gives {training[len(inference) :]!r} more than inference's prompt"
        same = len(commonprefix([inference, training]))  # noqa: RUF071
        shown = inference[same : same + 24], training[same : same + 24]
        return f"what stands earlier differs: inference {shown[0]!r}, training {shown[1]!r}"

    def _marks(self) -> str:
        """How transformers' mask by `{% generation %}` marks differs; "" without marks."""
        if not _MARKED.search(self._subject.template):
            return ""
        try:
            encoded = self._subject.official.apply_chat_template(
                self._subject.given(self._messages),
                tools=self._tools,
                chat_template=self._subject.template,
                return_dict=True,
                return_assistant_tokens_mask=True,
            )
        except OFFICIAL_ERRORS as error:
            return f"transformers can't: {words(error)}"
        ours = self._example["assistant_masks"]
        theirs = encoded["assistant_masks"] + [0] * (len(ours) - len(encoded["assistant_masks"]))  # none at added ends
        sides = [own - other for own, other in zip(map(int, ours), theirs, strict=True)]
        lacks, has = self._runs(sides, 1), self._runs(sides, -1)
        parts = [f"lacks {text!r}" for text in lacks] + [f"also has {text!r}" for text in has]
        return "; ".join(parts) or "equal"

    def _runs(self, sides: list[int], side: int) -> list[str]:
        runs: list[list[int]] = []
        for value, group in groupby(zip(self._ids, sides, strict=True), key=lambda pair: pair[1]):
            if value == side:
                runs.append([number for number, _ in group])
        return list(dict.fromkeys(self._subject.decode(run) for run in runs))
