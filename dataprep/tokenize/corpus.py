"""The conversations of a cache without their messages: ids, keys of their contents, sources."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataprep.core.arrays import to_numpy
from dataprep.core.chunks import ID_DIGITS, id_digits
from dataprep.core.columns import row_groups
from schemas.errors import CacheError, InputError
from schemas.files import damaged_files
from schemas.manifest import ConversationsManifest


@dataclass(frozen=True, slots=True, kw_only=True)
class Corpus:
    """The C conversations of a cache, without their messages."""

    ids: NDArray[np.uint8]  # (C, 32): their digits as ASCII
    keys: NDArray[np.uint64]  # (C,): the ids' first 16 digits; equal contents have equal keys
    names: list[str]  # of the sources, sorted
    sources: NDArray[np.int32]  # (C,): index into names

    def without_ids(self) -> "Corpus":
        """The same, but for what is not needed where chunks are known."""
        return replace(self, ids=self.ids[:0])


def read_corpus(folder: Path, manifest: ConversationsManifest) -> Corpus:
    """Read a conversations folder. Raises InputError where it holds none, CacheError where a part isn't whole."""
    _require_parts(folder, manifest)
    ids = np.empty((manifest.kept, ID_DIGITS), dtype=np.uint8)
    keys, sources = np.empty(manifest.kept, dtype=np.uint64), np.empty(manifest.kept, dtype=np.int32)
    numbers: dict[str, int] = {}  # of the sources, as they come
    for first, table in row_groups(folder, manifest, ["id", "source"]):
        own = slice(first, first + len(table))
        ids[own] = id_digits(table.column("id"))
        keys[own] = np.frombuffer(bytes.fromhex(ids[own, :16].tobytes().decode()), dtype=">u8")
        encoded = table.column("source").combine_chunks().dictionary_encode()
        found = [numbers.setdefault(name, len(numbers)) for name in encoded.dictionary.to_pylist()]
        sources[own] = np.array(found, dtype=np.int32)[to_numpy(encoded.indices)]
    names = sorted(numbers)
    places = np.empty(len(names), dtype=np.int32)
    places[[numbers[name] for name in names]] = np.arange(len(names))
    return Corpus(ids=ids, keys=keys, names=names, sources=places[sources])


def _require_parts(folder: Path, manifest: ConversationsManifest) -> None:
    if manifest.kept == 0:
        raise InputError(
            f"{folder}: holds no conversations; see {folder / manifest.quarantine.file} for why rows were turned away"
        )
    for name in damaged_files(folder, {part.file: part.sha256 for part in manifest.parts}):
        raise CacheError(
            f"{folder / name}: missing, or its checksum is not the manifest's; run `dataprep normalize` again"
        )
