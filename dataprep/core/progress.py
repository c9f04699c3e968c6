"""Progress bars: tqdm on a terminal, silent elsewhere."""

from typing import Any

from tqdm import tqdm


def progress_bar(total: int | None, unit: str, label: str) -> "tqdm[Any]":
    """Open a tqdm bar on stderr that hides itself when stderr is no terminal and clears when done."""
    return tqdm(total=total, unit=unit, desc=label, unit_scale=True, disable=None, leave=False, dynamic_ncols=True)
