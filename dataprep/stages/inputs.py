"""Paths in, input files out: what `dataprep normalize` was given and found, and what a file is cut into."""

import glob
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import orjson

from schemas.errors import InputError

RawRow = tuple[int, Any, bytes | None]  # number from 1, value, the row's own bytes where it has them

ENDINGS = (".jsonl", ".json", ".csv", ".tsv", ".txt", ".parquet", ".arrow")
STDIN = "-"
PACKINGS = (".gz", ".bz2", ".xz", ".zst")

_SAVED_STATE, _SAVED_INFO, _SAVED_SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
_PACKED = ", or as in .jsonl.gz (.bz2, .xz, .zst)"
_NEVER_PACKED = (".parquet", ".arrow")  # compressed inside, or mapped


@dataclass(frozen=True, kw_only=True, slots=True)
class RawFile:
    """One input file."""

    path: Path
    name: str  # the path as the user gave it, with forward slashes
    source: str  # the file's name without its endings
    ending: str  # one of ENDINGS: what it holds
    packing: str  # one of PACKINGS: how it is compressed; or empty
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """Part of one input file: bytes `start` to `end` of lines, those row groups of Parquet, or a whole .json.

    Of a stream, which can't be read from the middle, it holds the bytes themselves; of .csv after the header.
    """

    file: RawFile
    kind: str  # lines | json | delimited | document | parquet | arrow
    start: int  # of .arrow: stages/arrow.py
    end: int
    first_row: int  # from 1
    rows: int  # at most so many; 0 where that is not known before reading
    encoding: str | None = None  # that the file was read in where it is not UTF-8; `data` is UTF-8
    data: bytes | None = None  # of a stream: what to read
    bytes: int  # its share of the file


def find_files(inputs: list[str], *, leave_out: Path) -> list[RawFile]:
    """Resolve files, folders and globs to data files, each once, in the order given and sorted within.

    A .txt file is read where it or its ending is named: those that lie in a folder may be notes and licences.
    A folder that `datasets` saved gives the files that its state.json names. Hidden files and the folder `leave_out`
    are passed over in folders and globs. "-" is standard input, of .jsonl, whose size is not known and given as 0.
    Raises InputError.
    """
    found: dict[Path, RawFile] = {}
    for given in inputs:
        if given == STDIN:
            found[Path(STDIN)] = RawFile(
                path=Path(STDIN), name=STDIN, source="stdin", ending=".jsonl", packing="", bytes=0
            )
            continue
        for path in _matches(given, leave_out.resolve()):
            found.setdefault(path.resolve(), _raw_file(path))
    return list(found.values())


def is_data(path: Path) -> bool:
    """Tell by a file's endings whether its rows can be read."""
    ending, packing = _endings_of(path)
    return ending in ENDINGS and not (packing and ending in _NEVER_PACKED)


def _is_text(path: Path) -> bool:
    return _endings_of(path)[0] == ".txt"


def _endings_of(path: Path) -> tuple[str, str]:
    packing = path.suffix.lower() if path.suffix.lower() in PACKINGS else ""
    return PurePath(path.stem if packing else path.name).suffix.lower(), packing


def _matches(given: str, leave_out: Path) -> list[Path]:
    path = Path(given)
    if path.is_dir():
        files = list(_walk(path, leave_out))
        if not files:
            raise InputError(
                f"{given}: no {_endings()} file in this folder; name a folder or file that holds rows, "
                f"and .txt files as '{path.as_posix()}/*.txt'"
            )
        return files
    if os.path.lexists(path):
        if not is_data(path):
            raise InputError(
                f"{given}: cannot tell the kind of file by its ending; rename it to end in {_endings()}{_PACKED}"
            )
        return [path]
    if not glob.has_magic(given):
        raise InputError(f"{given}: no such file or folder; check the path (from {Path.cwd()})")
    matches = map(Path, sorted(glob.glob(given, recursive=True)))  # noqa: PTH207 (Path.glob takes no absolute pattern)
    files = [
        path
        for path in matches
        if is_data(path)
        and (_is_text(Path(given)) or not _is_text(path))
        and not path.is_dir()
        and leave_out not in path.resolve().parents
    ]
    if not files:
        raise InputError(f"{given}: no {_endings()} file matches; check the pattern (from {Path.cwd()})")
    return files


def _walk(folder: Path, leave_out: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if Path(parent).resolve() == leave_out:
            folders.clear()
            continue
        saved = _saved_files(Path(parent))
        if saved is not None:
            folders.clear()
            yield from saved
            continue
        for name in sorted(names):
            if not name.startswith(".") and name != _SAVED_SPLITS and is_data(Path(name)) and not _is_text(Path(name)):
                yield Path(parent) / name


def _saved_files(folder: Path) -> list[Path] | None:
    """Name the data files of a folder that `datasets` saved, in its order; None for any other folder.

    Raises InputError where they are not as its state.json says.
    """
    state = folder / _SAVED_STATE
    if not (state.is_file() and (folder / _SAVED_INFO).is_file()):
        return None
    try:
        record: Any = orjson.loads(state.read_bytes())
        files = [folder / entry["filename"] for entry in record["_data_files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{state}: names no data files; save the dataset again with save_to_disk") from error
    for path in files:
        if not path.is_file():
            raise InputError(f"{path}: no such file, though {_SAVED_STATE} names it; copy the whole folder again")
    return files


def _raw_file(path: Path) -> RawFile:
    name = os.fsencode(path.as_posix()).decode("utf-8", "replace")
    try:
        size = path.stat().st_size
    except OSError as error:
        raise InputError(f"{name}: cannot be read: {error.strerror}") from error
    if not path.is_file():
        raise InputError(f"{name}: not a regular file; write the rows to a file first")
    ending, packing = _endings_of(path)
    stem = PurePath(name).stem
    source = PurePath(stem).stem if packing else stem
    if ending == ".arrow" and (path.parent / _SAVED_STATE).is_file():
        source = path.resolve().parent.name
    return RawFile(path=path, name=name, source=source, ending=ending, packing=packing, bytes=size)


def _endings() -> str:
    return f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
