"""A traced rendering in, the span of each assistant turn in it out: what the model must produce, no more and no less.

A turn's targets begin where the prompt that inference would build for it ends (`add_generation_prompt=True` over the
messages before), and end with the control token that the template puts behind its last text. No template is known by
name: prompts and endings are found by rendering parts of the conversation.

Where the template takes arguments (`enable_thinking`), inference may build other prompts: the one that reaches furthest
and is the rendering's own beginning counts, so that an empty think block, which such a prompt holds, isn't trained on.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import compress
from os.path import commonprefix
from typing import Any

from dataprep.core.trace import Trace
from dataprep.core.trace_values import ValueStandIn, raw, shows_calls
from dataprep.stages.marked import Marked


class NoTurnError(Exception):
    """An assistant message whose span in the rendering can't be shown; `reason` is a ledger code."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


# Of a prompt: how what stands before a turn's targets in the rendering is what inference would give the model.
SAME = "same"  # the generation prompt of the messages before
LONGER = "longer"  # that prompt goes on, opening what this rendering leaves out (such as a think block)
OTHER = "other"  # the messages before are written otherwise in it (without earlier reasoning, say); its header is here


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One assistant message in a rendering; places are characters of the rendering over stand-ins."""

    message: int
    start: int  # first target
    end: int  # one past the end token
    next_start: int  # where what follows begins
    prompt: str  # SAME, LONGER, OTHER, or the template argument that makes the prompt, such as enable_thinking=False
    ended: bool  # False: the template ends it otherwise here than where it is the last message, so it isn't trained on
    added: str = ""  # the control token that must follow the whole rendering, where the template doesn't end the turn


_TWO_TURNS = "the template makes two turns of it"
_PROBE = "what the next message says"
_OPEN_MARK = re.compile(r"[<\[][^<>\[\]]*$")  # the beginning of a mark such as <think>

# Messages, whether a generation prompt is wanted, further template arguments -> a rendering; None where there is none.
Render = Callable[[list[dict[str, Any]], bool, dict[str, Any]], str | None]


class TurnSearch:
    """The search for all turns of one rendering."""

    def __init__(
        self,
        whole: Marked,
        trace: Trace,
        messages: list[dict[str, Any]],
        render: Render,
        control_tokens: Sequence[str],
        arguments: Sequence[str],
        eos: str | None,
        bos: str | None = None,
    ) -> None:
        """`arguments` are names that the template may be given; `eos` ends turns where no template token could.

        `bos` begins texts: inference doesn't stop at it, even where the following message begins with it.
        """
        self._whole, self._trace, self._messages, self._render = whole, trace, messages, render
        self._control_tokens, self._eos = control_tokens, eos
        self._stops = [token for token in control_tokens if token != bos or token == eos]
        self._variants = [{name: value} for name in arguments for value in (False, True)]
        self._beginnings: dict[str, tuple[int, str]] = {}  # literal before a first text -> characters of it, prompt
        self._endings: list[tuple[str, int]] = []  # found so far, and how much of each begins the following message
        self._reached = 0  # where the turn before ends

    def turns(self) -> list[Turn]:
        """Every assistant message's turn, in order. Raises NoTurnError."""
        return [self.turn(number) for number, message in enumerate(self._messages) if message["role"] == "assistant"]

    def turn(self, number: int) -> Turn:
        """One assistant message's turn. Raises NoTurnError."""
        try:
            return self._found_turn(number)
        except NoTurnError as error:
            own, later = self._whole.owned(number), self._whole.owned(number + 1)
            if error.reason != "turn-not-found" or not own or not later or own[-1] < later[0]:
                raise
            detail = f"message {number + 1}: the template writes its text behind that of the next message"
            raise NoTurnError(error.reason, detail) from error

    def passed(self, turn: Turn) -> None:
        """Go on behind a turn that was found otherwise."""
        self._reached = turn.end

    def _found_turn(self, number: int) -> Turn:
        owned = self._whole.owned(number)
        start, prompt = self._start(number, owned[0] if owned else None)
        last = max(start, owned[-1] + 1) if owned else start
        ending, begins_next, added = self._ending(number, start, last)
        shared = self._shared(ending, last) if ending is not None else None
        end = last + len(shared or "")
        reach = end if shared is not None else last + len(self._whole.literal_after(last))
        self._refuse_strangers(start, end, number, reach)
        self._refuse_two_turns(start, end, number)
        next_start = end - begins_next
        if not begins_next:
            tail = self._whole.literal_after(end)
            next_start += min((place for place in map(tail.find, self._control_tokens) if place >= 0), default=0)
        self._reached = end
        return Turn(
            message=number,
            start=start,
            end=end + len(added),
            next_start=next_start + len(added),
            prompt=prompt,
            ended=shared is not None,
            added=added,
        )

    def _start(self, number: int, first: int | None) -> tuple[int, str]:
        """Where the prompt of message `number` ends; `first` is where the message's first text stands.

        What was found for one turn holds for another before whose first text the same literal stands, so that a long
        dialogue isn't rendered once a turn.
        """
        literal = self._whole.literal_before(first) if first is not None else None
        if literal in self._beginnings:
            back, prompt = self._beginnings[literal]
            assert first is not None
            return first - back, prompt
        start, prompt = self._searched_start(number, first)
        if literal is not None and first is not None and first - start <= len(literal):
            self._beginnings[literal] = first - start, prompt
        return start, prompt

    def _searched_start(self, number: int, first: int | None) -> tuple[int, str]:
        before, whole = self._messages[:number], self._whole.text
        prompt = self._render(before, True, {})
        if prompt is not None and len(prompt) == first and whole.startswith(prompt):
            return first, SAME
        prompts = [(prompt, SAME)] if prompt is not None else []
        for variant in self._variants:
            other = self._render(before, True, variant)
            if other is not None and other != prompt:
                prompts.append((other, next(f"{name}={value}" for name, value in variant.items())))
                if len(other) == first and whole.startswith(other):  # none reaches further
                    break
        found = [(len(text), name) for text, name in prompts if self._begins(text, first)]
        if found:
            return max(found, key=lambda candidate: candidate[0])
        if first is not None and prompt is not None and prompt.startswith(whole[:first]):
            return first, LONGER
        low = self._after_texts_of(number, first)
        literal = self._whole.literal_after(low) if first is None else whole[low:first]
        start = self._after_header(before, [text for text, _ in prompts], literal, first is not None)
        if start is None:
            raise NoTurnError("turn-not-found", f"message {number + 1}: the rendering doesn't begin with its prompt")
        there = prompt is not None and whole[: low + start] == prompt[: low + start]
        return low + start, LONGER if there else OTHER

    def _begins(self, prompt: str, first: int | None) -> bool:
        return self._whole.text.startswith(prompt) and (first is None or len(prompt) <= first)

    def _after_texts_of(self, number: int, first: int | None) -> int:
        """The place behind the last text that stands before message `number`, and behind the turn before."""
        if first is not None:
            return max(self._reached, first - len(self._whole.literal_before(first)))
        places = (place + 1 for earlier in range(number) for place in self._whole.owned(earlier))
        return max(self._reached, max(places, default=0))

    def _after_header(
        self, before: list[dict[str, Any]], prompts: list[str], literal: str, has_text: bool
    ) -> int | None:
        """How far into `literal`, which stands before a turn's first text or holds the turn, its prompt reaches.

        What prompts hold behind the last text in them is looked for; then what they add to the messages before.
        """
        headers = [Marked(self._trace, prompt).literal_before(len(prompt)) for prompt in prompts]
        texts = [prompt[: len(prompt) - len(header)] for prompt, header in zip(prompts, headers, strict=True)]
        alike = [text == texts[0] for text in texts]  # an argument that writes the messages otherwise says nothing here
        prompts, headers = list(compress(prompts, alike)), list(compress(headers, alike))
        starts = [len(header) for header in headers if header and literal.startswith(header)]
        if starts:
            return max(starts)
        if has_text and literal and any(header.startswith(literal) for header in headers):
            return len(literal)
        bare = self._render(before, False, {})
        added = {prompt[len(bare) :] for prompt in prompts if bare is not None and prompt.startswith(bare)} - {""}
        starts = [literal.rfind(header) + len(header) for header in added if header in literal]
        if starts:
            return max(starts)
        if has_text and any(self._opens(header, literal) for header in added):
            return len(literal)
        same = has_text and self._whole.text.startswith(texts[0]) if texts else False
        return max((self._parting(header, literal, has_text, same) for header in headers), default=0) or None

    def _parting(self, header: str, literal: str, has_text: bool, same: bool) -> int:
        """How far into `literal` it is as `header`, whole marks; 0 where that isn't down to a control token.

        Before a text: all of it, where `header` only has more in its middle (`<bot><think></think>`, `<bot></think>`),
        be it without a control token where all before it is the `same`; else both must go on with control tokens, such
        as those that begin a thought and a text.
        """
        start = len(_OPEN_MARK.sub("", commonprefix([header, literal])))  # noqa: RUF071
        down = any(token in literal[:start] for token in self._control_tokens)
        if has_text and (down or same) and header.endswith(literal[start:]):
            return len(literal)
        if not down or not has_text:
            return start if down else 0
        return start if self._first_control(literal[start:]) and self._first_control(header[start:]) else 0

    def _opens(self, header: str, literal: str) -> bool:
        """Whether `literal` ends with the beginning of `header`, down to a control token at least."""
        shared = next((n for n in range(len(header), 0, -1) if literal.endswith(header[:n])), 0)
        return any(token in header[:shared] for token in self._control_tokens)

    def _ending(self, number: int, start: int, last: int) -> tuple[str | None, int, str]:
        """What ends the turn of message `number`: the text up to its end token, after its last own text.

        Further, how much of that begins the following message, and what must be added to the whole for it. An ending
        that was found for an earlier turn and stands here too is taken as it is. Raises NoTurnError.
        """
        known = [ending for ending in self._endings if self._whole.text.startswith(ending[0], last)]
        if len(known) == 1 and "tool_calls" not in self._messages[number] and self._whole.owned(number):
            return *known[0], ""
        tail = self._tail(self._messages[: number + 1], number, start, "")
        if tail is None:
            raise NoTurnError("turn-not-found", f"message {number + 1}: a conversation can't end with it")
        tail = self._without_opening(tail, number, start) if self._header(number) else self._without_header(tail, start)
        found, begins_next, added = self._up_to_control(tail), 0, ""
        if found is not None and tail[len(found) :].strip():  # such as an argument of a tool call, not the end
            found = None
        if found is None and number + 1 < len(self._messages):
            found, begins_next = self._with_next(tail, number, last)
        elif found is None:
            found, added = tail, self._added_end(number, start, tail)
        if found is not None and not added and (found, begins_next) not in self._endings:
            self._endings.append((found, begins_next))
        return found, begins_next, added

    def _tail(self, messages: list[dict[str, Any]], number: int, start: int, until: str) -> str | None:
        """The text after the last one of message `number` where these messages are rendered.

        With `until`, up to where this stands in it. None where there is no such rendering, or the turn isn't in it.
        """
        text = self._render(messages, False, {})
        if text is None:
            return None
        marked = Marked(self._trace, text)
        owned = marked.owned(number)
        if owned:
            literal = text[owned[-1] + 1 :]
        else:  # after the header that stands before the turn in the whole
            header = self._whole.literal_before(start)
            literal = marked.literal_before(len(text))
            if self._whole.owned(number) or not literal.startswith(header):
                return None
            literal = literal[len(header) :]
        return literal.partition(until)[0] if until else literal

    def _without_header(self, tail: str, start: int) -> str:
        """What ends a turn, without the next turn's header, which some templates write behind the last message, too.

        A header begins with the control token that follows the end of the message before this turn, its first control
        token, and ends with the last one before the turn's targets.
        """
        before = self._whole.literal_before(start)
        ends = sorted(before.find(token) + len(token) for token in self._control_tokens if token in before)
        opening = self._first_control(before[ends[0] :]) if ends else None
        place = tail.find(opening.lstrip()) if opening else -1
        if place > 0 and self._up_to_control(tail[:place]) is not None:
            tail = tail[:place]
        closing, found = self._up_to_control(before) or "", self._up_to_control(tail) or ""
        for token in self._control_tokens:
            shorter = found.removesuffix(token)
            if closing.endswith(token) and found.endswith(token) and self._up_to_control(shorter):
                return shorter
        return tail

    def _header(self, number: int) -> str:
        """What a generation prompt adds to the messages before one; "" where it isn't a mere addition."""
        before = self._messages[:number]
        bare, prompt = self._render(before, False, {}), self._render(before, True, {})
        return prompt[len(bare) :] if bare is not None and prompt is not None and prompt.startswith(bare) else ""

    def _without_opening(self, tail: str, number: int, start: int) -> str:
        """What ends a turn, without what opens one: the token that a generation prompt begins with opens turns.

        It may stand in a turn (before each of its calls, say). It doesn't where other messages that follow are written
        otherwise from there on, nor where nothing but control tokens comes behind a whole header of an answer.
        """
        if tail.strip() in self._control_tokens:  # as most turns end
            return tail
        header = self._header(number)
        opening = (self._first_control(header) or "").strip()
        if not opening or opening not in tail:
            return tail
        following = ([*self._messages[: number + 1], probe] for probe in self._following(number))
        others = [self._tail(messages, number, start, _PROBE) for messages in following]
        shared = commonprefix([tail, *(other for other in others if other is not None)])  # noqa: RUF071
        if len(shared) < len(self._up_to_control(tail) or ""):
            tail = (self._up_to_control(shared) or "").removesuffix(opening)
        own_header = self._whole.literal_before(start)
        own_header = own_header[max(0, own_header.rfind(opening)) :]
        place = tail.find(own_header)
        if place > 0 and self._up_to_control(tail[:place]) and self._only_controls(tail[place + len(own_header) :]):
            return tail[:place]
        return tail

    def _only_controls(self, text: str) -> bool:
        for token in self._control_tokens:
            text = text.replace(token, "")
        return not text.strip()

    def _with_next(self, tail: str, number: int, last: int) -> tuple[str | None, int]:
        """A turn's end by the control token with which the following message begins, and that token's length.

        None where that token opens answers, too: inference doesn't stop at it.
        """
        token = None
        if self._whole.text.startswith(tail, last):
            token = self._first_control(self._whole.literal_after(last + len(tail)))
        if token and self._opens_answers(token, number):
            token = None
        return (tail + token, len(token.lstrip())) if token else (None, 0)

    def _opens_answers(self, token: str, number: int) -> bool:
        return token.strip() == (self._first_control(self._header(number)) or "").strip()

    def _added_end(self, number: int, start: int, tail: str) -> str:
        """The control token that would follow the last turn, were there another message. Raises NoTurnError."""
        follows = None
        for probe in self._following(number):
            text = self._tail([*self._messages[: number + 1], probe], number, start, _PROBE)
            if text is None or tail not in text:
                continue
            follows = text[(0 if text.startswith(tail) else text.rfind(tail)) + len(tail) :]
            token = self._first_control(follows)
            # on a line of its own, it is an end only where the next message begins with another
            single = not token or (token[0].isspace() and not self._first_control(follows[len(token) :]))
            if token and not single and not self._opens_answers(token, number):
                return token
        never = follows is not None and not any(token in follows for token in self._control_tokens)
        if never and self._eos is not None:
            return self._eos
        raise NoTurnError("no-end-token", f"message {number + 1}: no control token ends its turn")

    def _following(self, number: int) -> list[dict[str, Any]]:
        """Messages that could follow one: what its tools answer, or what the user says."""
        following: list[dict[str, Any]] = [{"role": "user", "content": _PROBE}]
        for call in raw(self._messages[number].get("tool_calls", []))[:1]:
            answer = {"role": "tool", "content": _PROBE, "name": call["function"]["name"]}
            following.insert(0, answer | ({"tool_call_id": call["id"]} if "id" in call else {}))
        return following

    def _first_control(self, text: str) -> str | None:
        """The control token that a text begins with, with the blanks before it."""
        bare = text.lstrip()
        token = next((token for token in self._stops if bare.startswith(token)), None)
        return token and text[: len(text) - len(bare)] + token

    def _shared(self, ending: str, last: int) -> str | None:
        """What of `ending` stands in the whole rendering too, up to a control token; None where nothing does."""
        follows = self._whole.text[last : last + len(ending)]
        if follows == ending:
            return ending
        return self._up_to_control(commonprefix([ending, follows]))  # noqa: RUF071

    def _up_to_control(self, text: str) -> str | None:
        """A text up to the last control token in it; None where there is none."""
        ends = [text.rfind(token) + len(token) for token in self._control_tokens if token in text]
        return text[: max(ends)] if ends else None

    def _refuse_strangers(self, start: int, end: int, number: int, reach: int) -> None:
        """Raise where a turn holds another message's text, or lacks its own; its calls may stand up to `reach`."""
        if self._whole.count(start, end) != len(self._whole.owned(number)):
            raise NoTurnError("turn-not-found", f"message {number + 1}: another message's text stands inside its turn")
        if not self._shows_calls(number, start, reach):
            if self._shows_calls(number, self._after_texts_of(number, start), start):
                raise NoTurnError("turn-not-found", f"message {number + 1}: {_TWO_TURNS}")
            raise NoTurnError("message-dropped", f"message {number + 1}: the template leaves out its tool calls")

    def _shows_calls(self, number: int, start: int, end: int) -> bool:
        calls = self._messages[number].get("tool_calls", [])
        if isinstance(calls, ValueStandIn):
            return shows_calls(calls, self._trace.pieces(self._whole.text[start:end])[1])
        names = Counter(call["function"]["name"] for call in calls)
        return all(self._whole.text.count(name, start, end) >= times for name, times in names.items())

    def _refuse_two_turns(self, start: int, end: int, number: int) -> None:
        """Raise where a message is written as two turns: the end token, and the header again behind it."""
        before, turn = self._whole.literal_before(start), self._whole.text[start:end]
        closing = next((token for token in self._control_tokens if turn.endswith(token)), None)
        for part in turn.split(closing)[1:-1] if closing else ():
            bare = part.lstrip()
            shared = next((n for n in range(len(bare), 0, -1) if before.endswith(bare[:n])), 0)
            if any(token in bare[:shared] for token in self._control_tokens):
                raise NoTurnError("turn-not-found", f"message {number + 1}: {_TWO_TURNS}")
