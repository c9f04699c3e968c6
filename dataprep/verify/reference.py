"""The slow, official way from a conversation to ids and masks, and the proof that training sees what inference sees.

Texts and ids are transformers' `apply_chat_template`; masks come from the character offsets that Hugging Face's
tokenizer reports. Only where the turns stand is taken from a plan, which is traced anew and compared with the text.
"""

import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tokenizers import Tokenizer

from dataprep.core.as_text import controls_pattern, renamed
from dataprep.core.columns import read_columns
from dataprep.core.sandbox import TEMPLATE_ERRORS
from dataprep.stages.agree import INSIDE_TOKEN, REASONING
from dataprep.stages.chosen import dialogue_of
from dataprep.stages.plan import Dialogue, Plan, Plans, RefusedError, TurnCounts
from dataprep.stages.render import CLOCK, Renderer, given_arguments
from dataprep.stages.tracing import in_parts
from schemas.conversation import CONVERSATION
from schemas.manifest import TokenOptions

_COLUMNS = pa.schema([CONVERSATION.field("messages"), CONVERSATION.field("tools")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Derived:
    """A conversation's examples, laid end to end, and what of them can't be shown."""

    ids: NDArray[np.int64]
    mask: NDArray[np.bool_]
    lengths: list[int]  # of the examples
    turns: TurnCounts | None  # None for a document
    unshown: list[str] = field(default_factory=list)

    def inside_one(self, start: int, stop: int) -> bool:
        """Whether these tokens are of one example."""
        return any(low <= start < stop <= high for low, high in pairwise(np.cumsum([0, *self.lengths]).tolist()))


class Reference:
    """Examples as transformers makes them, for one tokenizer."""

    def __init__(self, tokenizer: Any, options: TokenOptions | None = None) -> None:
        from transformers.utils.chat_template_utils import _compile_jinja_template

        self._tokenizer = tokenizer
        self._options = options or TokenOptions()
        self._arguments = {name: value for name, value in self._options.template_args.items() if name != CLOCK}
        names = {name: token for name, token in tokenizer.special_tokens_map.items() if isinstance(token, str)}
        controls = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        controls |= set(tokenizer.all_special_tokens)
        self._controls = sorted(controls)
        self._sentinels = {token: f"\U0010fffd{number}\U0010fffd" for number, token in enumerate(self._controls)}
        self._blind: Tokenizer | None = None
        self._renderer = None
        if tokenizer.chat_template:
            compiled = _compile_jinja_template(tokenizer.chat_template)  # kept, and used by apply_chat_template
            if CLOCK in self._options.template_args:  # which takes no functions
                compiled.environment.globals[CLOCK] = given_arguments(self._options)[CLOCK]
            self._renderer = Renderer(
                tokenizer.chat_template, names, sorted(controls), len, compiled, options=self._options
            )

    def example(self, record: dict[str, Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids and mask of a conversation's examples, laid end to end. Raises RefusedError."""
        derived = self.derive(record)
        return derived.ids, derived.mask

    def derive(self, record: dict[str, Any]) -> Derived:
        """All there is to know of a conversation. Raises RefusedError where its turns can't be found."""
        given = {name: record[name] for name in _COLUMNS.names}
        dialogue = dialogue_of(read_columns(pa.Table.from_pylist([given], schema=_COLUMNS)), 0, self._options)
        if dialogue.roles == ("text",):
            text = dialogue.texts["content"][0]
            ids = [*self.encoded_pieces(["", text, ""])[0].tolist(), self._tokenizer.eos_token_id]
            return Derived(ids=np.array(ids), mask=np.arange(len(ids)) > 0, lengths=[len(ids)], turns=None)
        if self._renderer is None:
            raise RefusedError("no-chat-template", "this model has no chat template")
        plans = self._renderer.traced_anew(dialogue)
        shown = [_Shown(self, dialogue, plan) for plan in plans.examples]
        return Derived(
            ids=np.concatenate([each.ids for each in shown]),
            mask=np.concatenate([each.mask(self._options.train_on == "all") for each in shown]),
            lengths=[len(each.ids) for each in shown],
            turns=_with_inside_tokens(plans.turns, sum(number for each in shown for number in each.inside_tokens())),
            unshown=[]
            if self._options.train_on == "all"
            else [*_twice(plans), *(p for s in shown for p in s.unshown())],
        )

    def text(self, dialogue: Dialogue, count: int, prompt: bool = False, **further: Any) -> str:
        """The official rendering of the first messages. Raises TEMPLATE_ERRORS."""
        assert self._renderer is not None
        messages = dialogue.chat()[:count]
        given = in_parts(messages) if self._renderer.takes_parts else messages
        arguments = {**self._arguments, **further}
        return self._tokenizer.apply_chat_template(
            given, tools=dialogue.tools, tokenize=False, add_generation_prompt=prompt, **arguments
        )

    def encoded(self, text: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids of a text, and their bounds in it as characters."""
        encoding = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return np.array(encoding["input_ids"]), np.array(encoding["offset_mapping"], dtype=np.int64).reshape(-1, 2)

    def takes_as_text(self, texts: Sequence[str]) -> bool:
        """Whether these texts of messages hold strings of control tokens that must stay text."""
        asked = self._options.control_tokens == "text"
        return asked and any(token in text for token in self._controls for text in texts)

    def encoded_pieces(self, pieces: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Ids and bounds of a text given as literals of the template and texts of messages in turn.

        Control tokens are found in the literals; all else is encoded by a tokenizer that doesn't know them.
        """
        if not self.takes_as_text(pieces[1::2]):
            return self.encoded("".join(pieces))
        pattern = controls_pattern(self._controls)
        written: list[str] = []
        places = [0]  # of each character of what is written, in the text
        for number, piece in enumerate(pieces):
            start = 0
            for found in pattern.finditer(piece) if number % 2 == 0 else ():
                name = self._sentinels[found[0]]
                written += [piece[start : found.start()], name]
                places += range(places[-1] + 1, places[-1] + 1 + found.start() - start)
                places += [places[-1]] * (len(name) - 1) + [places[-1] + len(found[0])]
                start = found.end()
            written.append(piece[start:])
            places += range(places[-1] + 1, places[-1] + 1 + len(piece) - start)
        encoding = self._without_controls().encode("".join(written), add_special_tokens=False)
        bounds = np.array(places)[np.array(encoding.offsets, dtype=np.int64).reshape(-1, 2)]
        return np.array(encoding.ids, dtype=np.int64), bounds

    def _without_controls(self) -> Tokenizer:
        """The tokenizer, but with sentinels for the texts of its control tokens."""
        if self._blind is None:
            record = json.loads(self._tokenizer.backend_tokenizer.to_str())
            self._blind = Tokenizer.from_str(json.dumps(renamed(record, self._sentinels)))
            self._blind.no_truncation()
            self._blind.no_padding()
        return self._blind

    def decoded(self, ids: NDArray[np.int64]) -> str:
        """The text of ids."""
        return self._tokenizer.decode(ids.tolist(), skip_special_tokens=False, clean_up_tokenization_spaces=False)


class _Shown:
    """One example the official way."""

    def __init__(self, reference: Reference, dialogue: Dialogue, plan: Plan) -> None:
        self._reference, self._dialogue, self._plan = reference, dialogue, plan
        pieces = plan.pieces(plan.slot_texts(dialogue.texts))
        self._text = reference.text(dialogue, plan.num_messages) + plan.added_end
        if "".join(pieces) != self._text:
            raise RefusedError("rendering-differs", "the traced rendering is not what the chat template writes")
        places = np.cumsum([0, *map(len, pieces)])
        self._said = places.tolist()[1:-1:2], places.tolist()[2::2]  # where texts of messages start and end
        points = places[plan.point_pieces] + plan.point_offsets
        self._spans = [(start, end) for start, end, _ in points.reshape(-1, 3).tolist()]
        self.ids, self._bounds = reference.encoded_pieces(pieces)
        self._as_text = reference.takes_as_text(pieces[1::2])

    def mask(self, everything: bool) -> NDArray[np.bool_]:
        """The targets; with `everything`, all but turns that are marked as not to be trained on."""
        mask = np.full(len(self.ids), everything)
        wanted = self._dialogue.trains()
        for message, trained, span in zip(self._plan.turn_messages, self._plan.turn_trained, self._spans, strict=True):
            if everything and not wanted[message]:
                mask &= ~self._inside(span)
            elif trained:
                mask |= self._inside(span)
        mask[:1] = False
        return mask

    def _inside(self, span: tuple[int, int]) -> NDArray[np.bool_]:
        """The tokens that begin in a span; the last one of a turn, its end token, may take in blanks behind it."""
        first, last = self._bounds.T
        inside: NDArray[np.bool_] = (first >= span[0]) & (first < span[1]) & (first < last)
        return inside

    def _over(self, place: int) -> list[int]:
        """The token that reaches over a place, as [start, end]; [] where none does."""
        first, last = self._bounds.T
        return next(iter(self._bounds[(first < place) & (place < last)].tolist()), [])

    def _holds_text(self, token: list[int]) -> bool:
        """Whether text of a message stands in a token."""
        return any(low < token[1] and token[0] < high for low, high in zip(*self._said, strict=True) if low < high)

    def inside_tokens(self) -> Iterator[bool]:
        """Of each trained turn that differs in nothing else, whether inference's prompt ends inside a token."""
        turns = zip(self._spans, self._plan.turn_trained, self._plan.turn_differences, strict=True)
        for (start, _), trained, difference in turns:
            if trained and difference is None:
                over = self._over(start)
                yield bool(over) and not self._holds_text(over)

    def unshown(self) -> Iterator[str]:
        """What is wrong with the trained turns, message by message."""
        for number, trained in enumerate(self._plan.turn_trained):
            problem = self._problem(number) if trained else None
            if problem:
                yield f"message {self._plan.turn_messages[number] + 1}: {problem}"

    def _problem(self, number: int) -> str | None:
        message, difference = self._plan.turn_messages[number], self._plan.turn_differences[number]
        start, end = self._spans[number]
        for token in filter(None, (self._over(start), self._over(end))):
            if self._holds_text(token):
                return f"a token reaches over its bounds, and holds text of a message: {self._text[slice(*token)]!r}"
        targets = self._inside((start, end))
        begun = self._over(start)
        said = self._text[begun[1] if begun else start : end]
        if _bare(self._reference.decoded(self.ids[targets])) != _bare(said):
            return "its targets don't decode to its text"
        content = self._dialogue.texts["content"][message]
        if difference is None and self._untouched(message) and _bare(content) not in _bare(said):
            return "its targets don't hold its content"
        same = self._as_inference(number, int(np.flatnonzero(targets)[0]))
        if begun and not same and difference is None:
            difference = INSIDE_TOKEN
        if same == (difference is None) or difference == REASONING:
            return None
        return f"counted under {difference}, and doesn't differ" if same else "its prompt isn't that of inference"

    def _untouched(self, message: int) -> bool:
        return all(not slot.operations and not slot.parts for slot in self._plan.slots if message in slot.messages())

    def _as_inference(self, number: int, first_target: int) -> bool:
        """Whether inference's own prompt stands before the targets, and a conversation that ends here begins so."""
        message, (_, end) = self._plan.turn_messages[number], self._spans[number]
        name, _, value = self._plan.turn_prompts[number].partition("=")
        further = {name: value == "True"} if value else {}
        try:
            own = self._reference.text(self._dialogue, message + 1)
            prompt = self._reference.text(self._dialogue, message, True, **further)
        except TEMPLATE_ERRORS:
            return False
        begins = (own + self._plan.added_end).startswith(self._text[:end]) or self._text[:end].startswith(own)
        if self._as_text:  # what is the same text before a bound is encoded the same
            return begins and prompt == self._text[: self._spans[number][0]]
        ids, _ = self._reference.encoded(prompt)
        return begins and np.array_equal(ids, self.ids[:first_target])


def _with_inside_tokens(counts: TurnCounts, number: int) -> TurnCounts:
    if not number:
        return counts
    return replace(counts, differ={**counts.differ, INSIDE_TOKEN: number}, remain=counts.remain + number)


def _twice(plans: Plans) -> Iterator[str]:
    """Messages that more than one example trains on."""
    trained = [
        message
        for plan in plans.examples
        for message, is_trained in zip(plan.turn_messages, plan.turn_trained, strict=True)
        if is_trained
    ]
    for message in sorted({message for message in trained if trained.count(message) > 1}):
        yield f"message {message + 1}: trained on twice"


def _bare(text: str) -> str:
    return "".join(unicodedata.normalize("NFC", text).split())
