"""Input files in, the same with sources that tell them apart out: the shortest tails of their paths that differ."""

import os
from collections.abc import Set
from dataclasses import replace
from pathlib import PurePath
from urllib.parse import urlsplit

from dataprep.stages.read.raw import RawFile


def distinct_sources(files: list[RawFile], named: Set[str]) -> list[RawFile]:
    """Lengthen sources that stand for several files by the folders before them, as in a/chats and b/chats.

    Sources of files in `named` are the user's and stay. Files of one folder whose names differ in their endings only
    share a source, and so do the files of one saved dataset.
    """
    folders = {file.name: _folders(file) for file in files if file.name not in named}
    chosen = {name: 0 for name in folders}
    while True:
        found = {file.name: _tail(file, folders[file.name], chosen[file.name]) for file in files if file.name in chosen}
        places: dict[str, set[tuple[str, ...]]] = {}
        for name, source in found.items():
            places.setdefault(source, set()).add(folders[name])
        longer = {
            name for name, source in found.items() if len(places[source]) > 1 and chosen[name] < len(folders[name])
        }
        if not longer:
            return [replace(file, source=found.get(file.name, file.source)) for file in files]
        for name in longer:
            chosen[name] += 1


def _folders(file: RawFile) -> tuple[str, ...]:
    """Give the folders that lie around what the source is named after."""
    if file.name.startswith("hf://"):
        return tuple(file.name.removeprefix("hf://").split("/")[:1])
    if file.remote is not None:
        return tuple(urlsplit(file.remote.url).path.split("/")[1:-1])
    place = PurePath(os.path.abspath(file.path))  # noqa: PTH100 (Path.absolute keeps "..", resolve follows links)
    if file.archive is not None:
        place = place / file.name[len(file.archive.name) + 1 :]
    folders = place.parent.parts
    return folders[:-1] if folders and folders[-1] == file.source and file.path.suffix == ".arrow" else folders


def _tail(file: RawFile, folders: tuple[str, ...], num_folders: int) -> str:
    tail = [part.strip("/") for part in folders[len(folders) - num_folders :]]
    return "/".join([*tail, file.source])
