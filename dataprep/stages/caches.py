"""A folder in, whether it is a cache of ours out: what lies in one is made from raw data and is none itself."""

import re
from pathlib import Path

from schemas.conversation import CONVERSATIONS_FORMAT

CACHE_FOLDERS = ("conversations", "shards", "tokens")
CONVERSATIONS_FILES = re.compile(  # what `dataprep normalize` calls its files, finished or not
    r"part-\d{5}-[0-9a-f]{8}\.parquet|quarantine-[0-9a-f]{8}\.jsonl|\.+(unit|quarantine)-\d.*|\.manifest\.json\..*"
)

_HEAD_BYTES = 256  # in which a manifest of ours says what it is


def is_cache(folder: Path) -> bool:
    """Tell whether conversations of ours lie in a folder."""
    try:
        with (folder / "conversations" / "manifest.json").open("rb") as manifest:
            return CONVERSATIONS_FORMAT.encode() in manifest.read(_HEAD_BYTES)
    except OSError:
        return False
