"""A string in, the dialogue that is written in it out, where speaker marks show beyond doubt that it is one.

It must begin with a mark (or, in families that write a system text without one, with one paragraph of such a text),
and both speakers must have theirs. Marks that are plain words count at lines' starts only, and those that occur in
ordinary documents too (`Customer:`, `client:`) need more: nobody else speaks, and what is said looks like speech.

White space and end tokens directly around a mark belong to the mark; the text between is kept as it is. Most strings
are told from their first characters; only one that begins like a dialogue is read to its end.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from dataprep.stages.normalize.role_pairs import plain_name
from dataprep.stages.normalize.texts.families import PREAMBLES, TAGS, VICUNA, Family, line_family, line_pairs

WHITE = " \t\r\n"
PRELUDE_CHARACTERS = 4096
REMEMBERED_CHARACTERS = 1 << 16

_START = re.compile(
    r"\s*(?:(?:<s>|<bos>|<\|begin_of_text\|>|<\|endoftext\|>|\[gMASK\] ?<sop>|<｜begin▁of▁sentence｜>)\s*)?"
)
_LABEL = re.compile(r"[*\[]{0,2}([^\W_][\w-]{0,15}+(?: [\w-]{1,12}+)?+)[*\]]{0,2}[ \t]?[:：]")
_LABELS = re.compile(r"^[ \t]{0,3}[*\[]{0,2}([^\W\d_][\w .'’-]{0,19})[*\]]{0,2}[ \t]?[:：](?!//)", re.MULTILINE)
_WITH_PRELUDE = tuple(family for family in (*TAGS, *VICUNA) if family.hint)
_BLANK_LINE = re.compile(r"\n[ \t\r]*\n")
_SENTENCE_ENDS = tuple(".!?…。！？~～”」")
_SENTENCE = 10  # characters: shorter texts, such as a name in a form, may end in a full stop, too
_SPEECH = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One piece between marks: the speaker's name as the text has it, the part it plays, and what is said."""

    name: str
    part: str
    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Dialogue:
    """The turns of a marked string; `is_open` where its last mark is the assistant's and waits for an answer."""

    family: Family
    turns: tuple[Turn, ...]
    is_open: bool


def read_dialogue(text: str) -> Dialogue | None:
    """Read a whole dialogue; None where the text is none, or a document as far as can be told."""
    return _first(text, _is_dialogue)


def read_prompt(text: str) -> Dialogue | None:
    """Read a dialogue that waits for its last answer, with that answer's mark or without; None where it is none."""
    return _first(text, _is_prompt)


def read_as_dialogue(text: str) -> Dialogue | None:
    """Read a text that is known to be a dialogue, with fewer demands than read_dialogue makes."""
    return _first(text, _speaks)


def without_ends(text: str, family: Family) -> str:
    """Strip a turn of white space and of up to two end tokens."""
    text = text.strip(WHITE)
    for _ in range(2):
        end = next((end for end in family.ends if text.endswith(end)), None)
        if end is None:
            break
        text = text[: -len(end)].rstrip(WHITE)
    return text


def _first(text: str, fits: Callable[[Dialogue], bool]) -> Dialogue | None:
    return next((dialogue for dialogue in _candidates(text) if fits(dialogue)), None)


def _candidates(text: str) -> Iterator[Dialogue]:
    """Yield what the text may be, as far as its head tells."""
    start = _end(_START.match(text))
    is_tag = text[start : start + 1] in ("<", "[", "#", "【")
    label = _LABEL.match(text, start)
    pairs = line_pairs().get(plain_name(label[1]), ()) if label else ()
    if is_tag or pairs:
        body = text[start:]
        lowered = body.lower() if pairs else ""
        families = [line_family(pair) for pair in pairs if pair[0] in lowered and pair[1] in lowered]
        families = [*(TAGS if is_tag else ()), *(VICUNA if pairs else ()), *families]
        yield from (_split(body, "", family) for family in families if family.mark.match(body))
    head = text[start : start + PRELUDE_CHARACTERS]
    if not ("<" in head or "###" in head or "[" in head or "USER:" in head):
        return
    for family in _WITH_PRELUDE:
        mark = family.mark.search(head) if family.hint in head else None
        prelude = head[: mark.start()].strip(WHITE) if mark else ""
        if mark and prelude and "```" not in prelude and not _BLANK_LINE.search(prelude):
            yield _split(text[start + mark.start() :], prelude, family)


def _split(text: str, prelude: str, family: Family) -> Dialogue:
    """Split a text that begins with a mark; short ones are remembered, as finding and reading a row both ask."""
    return (_remembered if len(text) < REMEMBERED_CHARACTERS else _pieces)(text, prelude, family)


def _pieces(text: str, prelude: str, family: Family) -> Dialogue:
    marks = list(family.mark.finditer(text))
    turns = [Turn(name="", part="system", text=prelude)] if prelude and prelude not in PREAMBLES else []
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    for mark, end in zip(marks, ends, strict=True):
        name = mark.groups()[-1]
        part = family.parts.get("".join(name.split()).lower(), "")
        turns.append(Turn(name=name, part=part, text=without_ends(text[mark.end() : end], family)))
    if turns[-1].part == "user" and not turns[-1].text:
        turns.pop()
    is_open = bool(turns) and turns[-1].part == "assistant" and not turns[-1].text
    return Dialogue(family=family, turns=tuple(turns), is_open=is_open)


_remembered = lru_cache(maxsize=4)(_pieces)


def _end(found: re.Match[str] | None) -> int:
    return found.end() if found else 0


def _speaks(dialogue: Dialogue) -> bool:
    parts = {turn.part for turn in dialogue.turns}
    return "user" in parts and "assistant" in parts


def _is_dialogue(dialogue: Dialogue) -> bool:
    family, turns = dialogue.family, dialogue.turns
    if not _speaks(dialogue) or not _takes_turns(dialogue):
        return False
    if family in TAGS or family in VICUNA:
        return True
    said = turns[:-1] if dialogue.is_open else turns
    if not all(turn.text for turn in said) or not any(turn.part == "assistant" for turn in said):
        return False
    if not (family.doubtful or family.strict or turns[0].name.islower()):
        return True
    others = _others(dialogue)
    if any(len(name) == 1 for name in others):
        return False  # options to choose from: A: … B: … C: …
    if family.strict:
        return True
    if not family.doubtful:
        return len(turns) > 2 or not any(name.islower() for name in others)  # or it is a file of settings
    if len(turns) > 2:
        return max(others.values(), default=0) < 2 and any(_ends_a_sentence(turn.text) for turn in turns)
    return not others and _sounds_spoken(turns)


def _is_prompt(dialogue: Dialogue) -> bool:
    if not _speaks(dialogue) or not _takes_turns(dialogue):
        return False
    *before, last = dialogue.turns
    waits = last.part in ("user", "more", "tool") and not dialogue.family.doubtful
    said = all(turn.text for turn in before if turn.part in ("user", "assistant"))
    return said and (dialogue.is_open or waits)


def _takes_turns(dialogue: Dialogue) -> bool:
    """Tell whether the speakers take turns: always in strict families and after a system text without a mark."""
    family, turns = dialogue.family, dialogue.turns
    is_prelude = turns[0].name == ""
    speakers = [turn.part for turn in turns if turn.part in ("user", "assistant", "tool")]
    pairs = list(pairwise(speakers))
    repeats = sum(1 for before, after in pairs if before == after != "tool")
    if family.strict or is_prelude:
        return repeats == 0 and speakers[0] == "user"
    return family in TAGS or 2 * repeats <= len(pairs)


def _others(dialogue: Dialogue) -> dict[str, int]:
    """Count what else stands before a colon at lines' starts."""
    counts: dict[str, int] = {}
    for turn in dialogue.turns:
        for label in _LABELS.findall(turn.text):
            counts[label] = counts.get(label, 0) + 1
    return counts


def _sounds_spoken(turns: tuple[Turn, ...]) -> bool:
    """Tell a question and its answer from two fields of a form: one asks, or both say something of some length."""
    asks = any("?" in turn.text or "？" in turn.text for turn in turns if turn.part == "user")
    return asks or all(_is_said(turn.text) for turn in turns)


def _is_said(text: str) -> bool:
    return len(text) >= _SPEECH or (len(text) >= _SENTENCE and _ends_a_sentence(text))


def _ends_a_sentence(text: str) -> bool:
    return text.endswith(_SENTENCE_ENDS)
