"""The conversations of a cache without their messages: ids, keys of their contents, sources."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataprep.core.arrays import to_numpy
from dataprep.core.chunks import id_digits
from dataprep.core.columns import read_rows
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


def read_corpus(folder: Path, manifest: ConversationsManifest) -> Corpus:
    """Read a conversations folder. Raises InputError where it holds none, CacheError where a part isn't whole."""
    _require_parts(folder, manifest)
    table = read_rows(folder, manifest, 0, manifest.kept, ["id", "source"])
    encoded = table.column("source").combine_chunks().dictionary_encode()
    found = encoded.dictionary.to_pylist()
    ids, names = id_digits(table.column("id")), sorted(found)
    place = {name: number for number, name in enumerate(names)}
    places = np.array([place[name] for name in found], dtype=np.int32)
    keys = np.frombuffer(bytes.fromhex(ids[:, :16].tobytes().decode()), dtype=">u8").astype(np.uint64)
    return Corpus(ids=ids, keys=keys, names=names, sources=places[to_numpy(encoded.indices)])


def _require_parts(folder: Path, manifest: ConversationsManifest) -> None:
    if manifest.kept == 0:
        raise InputError(
            f"{folder}: holds no conversations; see {folder / manifest.quarantine.file} for why rows were turned away"
        )
    for name in damaged_files(folder, {part.file: part.sha256 for part in manifest.parts}):
        raise CacheError(
            f"{folder / name}: missing, or its checksum is not the manifest's; run `dataprep normalize` again"
        )
