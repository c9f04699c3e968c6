"""Paths in, input files out: what `dataprep normalize` was given and found."""

import glob
import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import orjson

from dataprep.stages.read.archives import ARCHIVE_ENDINGS, Archive, Member
from dataprep.stages.read.caches import CACHE_FOLDERS, is_cache
from dataprep.stages.read.hub import HUB, hub_files
from dataprep.stages.read.raw import ENDINGS, PACKINGS, STDIN, RawFile, RawRow, Segment
from dataprep.stages.read.remote import Remote, remote_files
from dataprep.stages.read.sniff import ending_of
from dataprep.stages.read.sources import distinct_sources
from schemas.errors import InputError

__all__ = ["ENDINGS", "PACKINGS", "STDIN", "RawFile", "RawRow", "Segment", "find_files", "is_data"]

_SAVED_STATE, _SAVED_INFO, _SAVED_SPLITS = "state.json", "dataset_info.json", "dataset_dict.json"
_SAVED = (_SAVED_STATE, _SAVED_INFO, _SAVED_SPLITS)
_COMPRESSED = ", or as in .jsonl.gz (.bz2, .xz, .zst)"
_PACKED = f"{_COMPRESSED}; a .zip or .tar may hold such files"
_NEVER_PACKED = (".parquet", ".arrow")  # compressed inside, or mapped
_ALSO_LINES = (".ndjson", ".jsonlines")
_URL = re.compile(r"(?!hf:)[a-z][a-z0-9+]+://", re.IGNORECASE)
_NAMED = re.compile(r"([^=/\\]+)=(.+)", re.DOTALL)


def find_files(inputs: list[str], *, leave_out: Path) -> list[RawFile]:
    """Resolve files, folders and globs to data files, each once, in the order given and sorted within.

    A .txt file is read where it or its ending is named: those that lie in a folder may be notes and licences.
    A folder that `datasets` saved gives the files that its state.json names. Hidden files and the folder `leave_out`
    are passed over in folders and globs; what lies in a cache of ours is, too, in folders and in globs with **.
    "-" is standard input, of .jsonl, whose size is not known and given as 0.
    An archive gives its members; hf://owner/name a dataset of the hub; another URL what lies there; NAME=PATH what PATH
    does, with the source NAME.
    The kind of a file that is named and has none of our endings is found out. Raises InputError.
    """
    found: dict[tuple[Path, str], RawFile] = {}
    named: set[str] = set()
    for given in inputs:
        if not given:
            raise InputError("INPUT: an empty name; is a variable of the shell not set?")
        source, path = _named(given)
        files = list(_given_files(path, leave_out.resolve()))
        if not files:
            raise InputError(f"{given}: only archives that hold no {_endings()} file; name a folder or file with rows")
        for file in files:
            if source is not None:
                file = replace(file, source=source)
                named.add(file.name)
            key = (Path(), file.name) if file.remote or file.name == STDIN else (file.path.resolve(), _member(file))
            found.setdefault(key, file)
    return distinct_sources(list(found.values()), named)


def is_data(path: Path) -> bool:
    """Tell by a file's endings whether its rows can be read."""
    ending, packing = _endings_of(path)
    return ending in ENDINGS and not (packing and ending in _NEVER_PACKED)


def _member(file: RawFile) -> str:
    return file.name if file.archive else ""


def _named(given: str) -> tuple[str | None, str]:
    """Divide NAME=PATH; anything that is there under its whole name has no source given."""
    parts = _NAMED.fullmatch(given)
    if parts is None or os.path.lexists(given) or (glob.has_magic(given) and _globbed(given)):
        return None, given
    if not parts[1].strip() or _is_broken(parts[1]):
        raise InputError(f"{given}: no name before the '='; write NAME=PATH or ./{given}")
    return parts[1], parts[2]


def _given_files(given: str, leave_out: Path) -> Iterator[RawFile]:
    if given == STDIN:
        yield RawFile(path=Path(STDIN), name=STDIN, source="stdin", ending=".jsonl", packing="", bytes=0)
        return
    if given.startswith(HUB):
        yield from hub_files(given)
        return
    if _URL.match(given):
        yield from _remote_files(given)
        return
    path = Path(given)
    alone = os.path.lexists(path) and not path.is_dir()
    for match in [path] if alone else _matches(given, leave_out):
        if _archive_ending(match):
            yield from _members(match, alone)
        elif alone and not is_data(match):
            yield from _sniffed(match)
        else:
            yield _raw_file(match)


def _remote_files(given: str) -> Iterator[RawFile]:
    """Give the files of a URL: those that our endings speak for where it stands for several."""
    found = remote_files(given)
    files = [_remote_file(remote) for remote in found]
    for file in files:
        name = file.path.name
        if len(files) > 1 and (name.startswith(".") or (file.ending == ".txt" and not given.endswith(".txt"))):
            continue
        if is_data(file.path):
            yield file
        elif len(files) == 1:
            raise InputError(
                f"{given}: cannot tell the kind of file by its ending, or it is an archive; name one that ends in "
                f"{_endings()}{_COMPRESSED}, or download it first"
            )


def _remote_file(remote: Remote) -> RawFile:
    path = Path(remote.name)
    ending, packing = _endings_of(path)
    return RawFile(
        path=path,
        name=remote.url,
        source=_source(remote.name, packing),
        ending=ending,
        packing=packing,
        bytes=remote.bytes,
        remote=remote,
    )


def _sniffed(path: Path) -> Iterator[RawFile]:
    file = _raw_file(path)
    if path.suffix.lower() in _NEVER_PACKED or not file.bytes:
        kind, packing = "", ""
    else:
        try:
            kind, packing = ending_of(path)
        except OSError as error:
            raise InputError(f"{file.name}: cannot be read: {error.strerror or error}") from error
    if kind in ENDINGS:
        yield replace(file, ending=kind, packing=packing, source=PurePath(file.name).stem)
    elif kind + packing in ARCHIVE_ENDINGS:
        yield from _members(path, True, kind + packing)
    else:
        raise InputError(
            f"{path}: cannot tell the kind of file by its ending; rename it to end in {_endings()}{_PACKED}"
        )


def _is_text(path: Path) -> bool:
    return _endings_of(path)[0] == ".txt"


def _endings_of(path: PurePath) -> tuple[str, str]:
    packing = path.suffix.lower() if path.suffix.lower() in PACKINGS else ""
    ending = PurePath(path.stem if packing else path.name).suffix.lower()
    return ".jsonl" if ending in _ALSO_LINES else ending, packing


def _archive_ending(path: Path) -> str:
    name = path.name.lower()
    return next((ending for ending in ARCHIVE_ENDINGS if name.endswith(ending) and name != ending), "")


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
    if not glob.has_magic(given):
        raise InputError(f"{given}: no such file or folder; check the path (from {Path.cwd()})")
    files = [
        path
        for path in map(Path, _globbed(given))
        if (is_data(path) or _archive_ending(path))
        and (_is_text(Path(given)) or not _is_text(path))
        and not path.is_dir()
        and leave_out not in path.resolve().parents
        and not ("**" in given and _in_cache(path))
    ]
    if not files:
        raise InputError(f"{given}: no {_endings()} file matches; check the pattern (from {Path.cwd()})")
    return files


def _globbed(given: str) -> list[str]:
    return sorted(glob.glob(given, recursive=True))  # noqa: PTH207 (Path.glob takes no absolute pattern)


def _walk(folder: Path, leave_out: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder, onerror=_refuse_unread):
        in_cache = CACHE_FOLDERS if is_cache(Path(parent)) else ()
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in in_cache)
        if Path(parent).resolve() == leave_out:
            folders.clear()
            continue
        saved = _saved_files(Path(parent))
        if saved is not None:
            folders.clear()
            yield from saved
            continue
        for name in sorted(names):
            path = Path(parent) / name
            passed_over = name.startswith(".") or name == _SAVED_SPLITS or _is_text(path)
            if not passed_over and (is_data(path) or _archive_ending(path)):
                yield path


def _refuse_unread(error: OSError) -> None:
    raise InputError(
        f"{error.filename}: cannot be read: {error.strerror}; make it readable, or name the files and folders beside it"
    ) from error


def _in_cache(path: Path) -> bool:
    inside = zip(path.resolve().parents, path.resolve().parents[1:], strict=False)
    return any(folder.name in CACHE_FOLDERS and is_cache(parent) for folder, parent in inside)


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


def _members(path: Path, alone: bool, ending: str = "") -> Iterator[RawFile]:
    """Give the files in an archive that can be read; documents (.txt) only where there is nothing else.

    Where none can be read, that is an error for an archive that is named `alone`.
    """
    whole = _raw_file(path)
    archive = Archive(path, whole.name, *ARCHIVE_ENDINGS[ending or _archive_ending(path)])
    members = archive.members()
    readable = [member for member in members if _is_readable(member.name)]
    rows = [member for member in readable if not _is_text(Path(member.name))]
    if any(_endings_of(PurePath(member.name))[0] == ".arrow" for member in rows):
        rows = [member for member in rows if PurePath(member.name).name not in _SAVED]
    if alone and not readable:
        raise InputError(f"{whole.name}: no {_endings()} file in it; {_held(members)}")
    for member in rows or readable:
        inner = member.name.removeprefix("./")
        ending, packing = _endings_of(PurePath(inner))
        yield RawFile(
            path=path,
            name=f"{whole.name}/{inner}",
            source=_source(inner, packing),
            ending=ending,
            packing=packing,
            bytes=member.bytes,
            archive=archive,
            place=member.place,
        )


def _is_readable(name: str) -> bool:
    parts = PurePath(name).parts
    return is_data(Path(name)) and not any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _held(members: list[Member]) -> str:
    if not members:
        return "it is empty"
    names = ", ".join(repr(member.name)[1:-1] for member in members[:3])
    return f"it holds {names}" + (f" and {len(members) - 3} more" if len(members) > 3 else "")


def _source(name: str, packing: str) -> str:
    stem = PurePath(name).stem
    return PurePath(stem).stem if packing else stem


def _raw_file(path: Path) -> RawFile:
    name = os.fsencode(path.as_posix()).decode("utf-8", "replace")
    try:
        size = path.stat().st_size
    except OSError as error:
        remedy = "mend or remove the link" if path.is_symlink() else "make it readable, or leave it out"
        raise InputError(f"{name}: cannot be read: {error.strerror}; {remedy}") from error
    if not path.is_file():
        raise InputError(
            f"{name}: not a regular file; write the rows to a file, or give them to standard input and '-'"
        )
    ending, packing = _endings_of(path)
    if ending in _NEVER_PACKED and _is_broken(str(path)):
        raise InputError(f"{name}: Arrow opens no file whose name or folder is not UTF-8; rename it")
    source = _source(name, packing)
    if ending == ".arrow" and (path.parent / _SAVED_STATE).is_file():
        source = path.resolve().parent.name
    return RawFile(path=path, name=name, source=source, ending=ending, packing=packing, bytes=size)


def _is_broken(name: str) -> bool:
    """Tell whether a name holds bytes that are not UTF-8."""
    return any("\ud800" <= character <= "\udfff" for character in name)


def _endings() -> str:
    return f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
