"""A cache in; the files that nothing in it refers to, each with why, out. Names that aren't ours are passed over."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dataprep.core.chunk_files import CHUNK_FILE, chunk_files
from dataprep.core.tokenizer import TOKENIZER_FILES
from dataprep.stages.read.caches import CONVERSATIONS_FILES
from dataprep.tokenize.in_use import needed_chunks, tokens_folder
from dataprep.tokenize.shards_folder import OURS as SHARDS_FILES
from schemas.errors import CacheError
from schemas.files import is_leftover
from schemas.manifest import (
    ConversationsManifest,
    ShardsManifest,
    read_conversations_manifest,
    read_shards_manifest,
)

_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
_OLD_CHUNK = re.compile(r"[0-9a-f]{32}\.arrow")  # of examples of version 2 and before
LEFT = "left by a run that was stopped"
UNNAMED = "named by no manifest"
OTHER_OPTIONS = "made with another tokenizer, template or other options than the shards"
OTHER_ROWS = "of conversations that are no longer there"
OTHER_TOKENIZER = "of a tokenizer that the shards don't use"


@dataclass(frozen=True, kw_only=True, slots=True)
class Garbage:
    """One file that nothing refers to."""

    path: Path
    place: str  # the folder it is counted under
    why: str
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What may go, and what was not looked through, with the reason."""

    garbage: list[Garbage]
    kept: list[str]


def find_garbage(cache: Path) -> Found:
    """Look through a cache that no run writes to. Raises CacheError where a part of the conversations isn't whole."""
    kept: list[str] = []
    source = _conversations_manifest(cache / "conversations", kept)
    shards = _shards_manifest(cache / "shards", kept)
    found = [*_in_conversations(cache / "conversations", source), *_in_shards(cache / "shards", shards)]
    if source is None or shards is None:
        what = "shards" if shards is None else "conversations"
        kept += [f"tokens/ and tokenizers/: kept, since no {what} tell which of them are in use"]
    else:
        found += [*_in_tokens(cache, source, shards), *_in_tokenizers(cache / "tokenizers", shards)]
    found += _leftovers(cache)
    garbage = {each.path: each for each in found}
    return Found(garbage=list(garbage.values()), kept=kept)


def _conversations_manifest(folder: Path, kept: list[str]) -> ConversationsManifest | None:
    if not (folder / "manifest.json").exists():
        return None
    try:
        return read_conversations_manifest(folder)
    except CacheError as error:
        kept.append(f"conversations/: kept as it is: {error}")
        return None


def _shards_manifest(folder: Path, kept: list[str]) -> ShardsManifest | None:
    if not (folder / "manifest.json").exists():
        return None
    try:
        return read_shards_manifest(folder)
    except CacheError as error:
        kept.append(f"shards/: kept as it is: {error}")
        return None


def _in_conversations(folder: Path, manifest: ConversationsManifest | None) -> Iterator[Garbage]:
    if manifest is None and (folder / "manifest.json").exists():
        return
    named = {manifest.quarantine.file, *(part.file for part in manifest.parts)} if manifest else set()
    for path in _files(folder):
        if path.name not in named and CONVERSATIONS_FILES.fullmatch(path.name):
            yield _garbage(path, "conversations/", UNNAMED if path.name[0] != "." else LEFT)


def _in_shards(folder: Path, manifest: ShardsManifest | None) -> Iterator[Garbage]:
    if manifest is None and (folder / "manifest.json").exists():
        return
    named = {record.file for records in manifest.splits.values() for record in records} if manifest else set()
    named |= {manifest.quarantine.file, manifest.tokenizer.folder} if manifest else set()
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name in named or not SHARDS_FILES.fullmatch(path.name):
            continue
        if path.is_dir():
            yield from _tokenizer_files(path, f"shards/{path.name}/", OTHER_TOKENIZER)
        else:
            yield _garbage(path, "shards/", UNNAMED)


def _in_tokens(cache: Path, source: ConversationsManifest, shards: ShardsManifest) -> Iterator[Garbage]:
    used = tokens_folder(cache, shards.tokens_fingerprint)
    for folder in _folders(cache / "tokens"):
        place = f"tokens/{folder.name}/"
        if folder != used:
            for path in _files(folder):
                known = CHUNK_FILE.fullmatch(path.name) or _OLD_CHUNK.fullmatch(path.name)
                if known or path.name == "manifest.json":
                    yield _garbage(path, place, OTHER_OPTIONS)
            continue
        needed = {chunk.key for chunk in needed_chunks(cache, source, shards)}
        for key, paths in chunk_files(folder).items():
            if key not in needed:
                yield from (_garbage(path, place, OTHER_ROWS) for path in paths)


def _in_tokenizers(folder: Path, shards: ShardsManifest) -> Iterator[Garbage]:
    for home in _folders(folder):
        if not shards.tokenizer.folder.endswith(f"-{home.name[:8]}"):
            place = f"tokenizers/{home.name}/"
            yield from _tokenizer_files(home / "files", place, OTHER_TOKENIZER)
            for name in ("bundle.json", "token_bytes.npz"):
                if (home / name).is_file():
                    yield _garbage(home / name, place, OTHER_TOKENIZER)


def _tokenizer_files(folder: Path, place: str, why: str) -> Iterator[Garbage]:
    for path in _files(folder):
        if any(path.match(pattern) for pattern in TOKENIZER_FILES):
            yield _garbage(path, place, why)


def _leftovers(cache: Path) -> Iterator[Garbage]:
    """Temporary files in our folders; a temporary folder is given as its files."""
    roots = [cache / name for name in ("conversations", "shards", "tokens", "tokenizers")]
    for root in roots:
        for path in sorted(root.rglob(".*.tmp")):
            if is_leftover(path):
                files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
                yield from (_garbage(file, f"{root.name}/", LEFT) for file in files)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []


def _folders(folder: Path) -> list[Path]:
    """The subfolders that are named by fingerprints."""
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.is_dir() and _FINGERPRINT.fullmatch(path.name))


def _garbage(path: Path, place: str, why: str) -> Garbage:
    return Garbage(path=path, place=place, why=why, bytes=path.lstat().st_size)
