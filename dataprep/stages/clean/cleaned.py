"""What a cleaning step gives back. A step is a function of a conversation's messages and their JSON.

The JSON (schemas/conversation.md: what ids hash) is one run of bytes in which a few substring searches tell that there
is nothing to do; only where one hits is a message looked at.
"""

from collections.abc import Callable
from dataclasses import dataclass

from dataprep.stages.normalize.message import Message


@dataclass(frozen=True, kw_only=True, slots=True)
class Cleaned:
    """A conversation after cleaning; `messages` is the list that was given where nothing was changed."""

    messages: list[Message]
    changed: tuple[str, ...] = ()  # names of the steps that changed it
    seen: tuple[str, ...] = ()  # names of the steps that found something and left it, as they were told to


# None: nothing changed and nothing seen. Raises TurnedAway for a conversation that is not to be kept.
Clean = Callable[[list[Message], bytes], Cleaned | None]
