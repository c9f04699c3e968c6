"""`dataprep gc`: say what nothing in a cache refers to, and remove it where that is wanted."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from dataprep.core.lock import locked
from dataprep.core.sizes import size_text
from dataprep.gc.find import Found, Garbage, find_garbage
from schemas.errors import CacheError


def collect_garbage(cache: Path, say: Callable[[str], None], may_remove: Callable[[], bool]) -> bool:
    """Tell by `say` what would go, and remove it if `may_remove` says so; returns whether anything is left to remove.

    Raises CacheError where a run is under way, or a file can't be removed.
    """
    if not any((cache / name).is_dir() for name in ("conversations", "shards", "tokens", "tokenizers")):
        raise CacheError(f"{cache}: no cache here; name the folder that `dataprep normalize --out` wrote to")
    with locked(cache):
        found = find_garbage(cache)
        say(garbage_text(cache, found))
        if not found.garbage or not may_remove():
            return bool(found.garbage)
        for each in found.garbage:
            _remove(each.path, cache)
        total = sum(each.bytes for each in found.garbage)
        say(f"removed {_counted(len(found.garbage))} ({size_text(total)})")
        return False


def garbage_text(cache: Path, found: Found) -> str:
    """Say what nothing refers to, by folder and reason, with counts and bytes."""
    lines = found.kept.copy()
    if not found.garbage:
        return "\n".join([*lines, f"{cache}: nothing to remove; all that is known is in use"])
    groups: dict[tuple[str, str], list[Garbage]] = {}
    for each in found.garbage:
        groups.setdefault((each.place, each.why), []).append(each)
    width = max(len(place) for place, _ in groups)
    lines.append(f"{cache}: {_counted(len(found.garbage))} that nothing refers to:")
    for (place, why), group in groups.items():
        size = size_text(sum(each.bytes for each in group))
        lines.append(f"  {place:<{width}}  {len(group):>7,}  {size:>9}  {why}")
    return "\n".join(lines)


def _counted(number: int) -> str:
    return "1 file" if number == 1 else f"{number:,} files"


def _remove(path: Path, cache: Path) -> None:
    """Remove a file, and the folders that this leaves empty."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(
            f"{path}: cannot be removed: {error.strerror}; check permissions, then run it again"
        ) from error
    for folder in path.parents:
        if folder in (cache, cache / "conversations", cache / "shards", cache / "tokens", cache / "tokenizers"):
            return
        with suppress(OSError):  # not empty
            folder.rmdir()
