"""In a long dialogue turn after turn reads alike: what was found of some of them holds for the next.

To find how inference shows a turn takes renderings of all before it, so that a dialogue of a thousand turns would take
a thousand times as long as one of thirty. Turns that read alike are those with the same literals before, between and
behind their own texts, the same fields, and the same role before them.
"""

from dataclasses import dataclass
from typing import Any

from dataprep.core.trace_values import ValueStandIn
from dataprep.stages.marked import Marked
from dataprep.stages.turns import Turn

_ENOUGH = 16  # turns that were found one by one, all at the same distances from their texts


@dataclass(frozen=True, slots=True)
class _Looks:
    """What a turn looks like."""

    before: str
    between: tuple[str, ...]
    behind: str
    fields: tuple[str, ...]
    role_before: str
    also: tuple[bool, ...]


@dataclass(frozen=True, slots=True)
class _Found:
    """A turn, counted from its first and last own text, and what else was found of it."""

    start: int
    end: int
    next_start: int
    prompt: str
    ended: bool
    added: str
    more: tuple[Any, ...]


class Repeats:
    """What was found of turns, by what they look like."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        self._messages = messages
        self._found: dict[_Looks, tuple[_Found, int]] = {}  # and how often; less than 0: not always the same

    def find(self, marked: Marked, number: int, also: tuple[bool, ...] = ()) -> tuple[Turn, tuple[Any, ...]] | None:
        """A message's turn in a rendering, with what else was noted; None where too few that read alike were.

        `also` is what else turns must have in common.
        """
        looks = self._looks(marked, number, also)
        if looks is None or looks not in self._found:
            return None
        found, times = self._found[looks]
        if times < _ENOUGH:
            return None
        owned = marked.owned(number)
        end = owned[-1] + 1 + found.end
        turn = Turn(
            message=number,
            start=owned[0] - found.start,
            end=end,
            next_start=end + found.next_start,
            prompt=found.prompt,
            ended=found.ended,
            added=found.added,
        )
        return turn, found.more

    def note(self, marked: Marked, turn: Turn, also: tuple[bool, ...] = (), more: tuple[Any, ...] = ()) -> None:
        """Remember a turn of a rendering, and more that was found of it."""
        looks = self._looks(marked, turn.message, also)
        if looks is None:
            return
        owned = marked.owned(turn.message)
        found = _Found(
            start=owned[0] - turn.start,
            end=turn.end - owned[-1] - 1,
            next_start=turn.next_start - turn.end,
            prompt=turn.prompt,
            ended=turn.ended,
            added=turn.added,
            more=more,
        )
        before, times = self._found.get(looks, (found, 0))
        self._found[looks] = found, times + 1 if before == found and times >= 0 else -1

    def _looks(self, marked: Marked, number: int, also: tuple[bool, ...]) -> _Looks | None:
        """None where a turn has no text of its own, or holds calls as they are, of which no two look alike."""
        owned, message = marked.owned(number), self._messages[number]
        if not owned or ("tool_calls" in message and not isinstance(message["tool_calls"], ValueStandIn)):
            return None
        return _Looks(
            before=marked.literal_before(owned[0]),
            between=tuple(marked.literal_before(place) for place in owned[1:]),
            behind=marked.literal_after(owned[-1] + 1),
            fields=tuple(sorted(message)),
            role_before=self._messages[number - 1]["role"] if number else "",
            also=also,
        )
