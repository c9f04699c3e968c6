"""A rendering over stand-ins in; where the texts of its messages stand, and the literals between them, out."""

from bisect import bisect_left

from dataprep.core.trace import Trace


class Marked:
    """A marked rendering, and where its marks stand."""

    def __init__(self, trace: Trace, text: str) -> None:
        self.text = text
        self._places: list[int] = []
        self._owned: dict[int, list[int]] = {}  # message -> places of its marks
        for place, mark in trace.marks(text):
            self._places.append(place)
            for message in trace.slot_of(mark).messages():
                self._owned.setdefault(message, []).append(place)

    def owned(self, message: int) -> list[int]:
        """Where the texts of a message stand."""
        return self._owned.get(message, [])

    def point(self, place: int) -> tuple[int, int]:
        """A place as (literal, characters into it)."""
        literal = bisect_left(self._places, place)
        return literal, place - (self._places[literal - 1] + 1 if literal else 0)

    def literal_after(self, place: int) -> str:
        """The literal text from a place to the next mark."""
        following = bisect_left(self._places, place)
        return self.text[place : self._places[following] if following < len(self._places) else None]

    def literal_before(self, place: int) -> str:
        """The literal text from the mark before a place up to it."""
        before = bisect_left(self._places, place)
        return self.text[self._places[before - 1] + 1 if before else 0 : place]

    def count(self, start: int, end: int) -> int:
        """Marks between two places."""
        return bisect_left(self._places, end) - bisect_left(self._places, start)
