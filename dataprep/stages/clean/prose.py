"""Prose beside code: what is inside ``` or ~~~ fences and `inline code` is no text to mend.

A fence that nobody closes goes on to the end of the message.
"""

import re
from collections.abc import Callable

_CODE = re.compile(r"(```.*?(?:```|\Z)|~~~.*?(?:~~~|\Z)|`[^`\n]+`)", re.DOTALL)


def prose_pieces(text: str) -> list[str]:
    """Give the stretches of a text that are not code, in order."""
    return _CODE.split(text)[::2]


def outside_code(mend: Callable[[str], str], text: str) -> str:
    """Apply `mend` to each stretch of a text that is not code."""
    if "`" not in text and "~~~" not in text:
        return mend(text)
    pieces = _CODE.split(text)  # prose, code, prose, …
    pieces[::2] = map(mend, pieces[::2])
    return "".join(pieces)
