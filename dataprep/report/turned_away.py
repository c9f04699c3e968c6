"""Quarantine files in; counts by source and reason and a choice of lines out; what is held is where the lines are."""

import json
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

import orjson

from schemas.errors import CacheError

Stratum = tuple[str, str, str]  # stage, source, reason


@dataclass(slots=True, kw_only=True)
class Quarantined:
    """The rows of the quarantine files: how many of each stratum, and where some of them stand."""

    counts: Counter[Stratum] = field(default_factory=Counter)
    places: dict[Stratum, list[tuple[Path, int]]] = field(default_factory=dict)  # file, byte

    def by_source(self) -> defaultdict[str, Counter[str]]:
        """Source -> reason -> rows."""
        sums: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for (_, source, reason), count in self.counts.items():
            sums[source][reason] += count
        return sums


def read_quarantines(
    stages: Sequence[tuple[str, Path]], sources: Mapping[str, str], keep: int, seed: int
) -> Quarantined:
    """Count each stage's file and keep the places of at most `keep` lines a stratum, chosen at random by `seed`.

    `sources` names the source of a file for lines that don't tell it.
    """
    found = Quarantined()
    chance = random.Random(seed)
    for stage, path in stages:
        place = 0
        try:
            with path.open("rb") as lines:
                for line in lines:
                    record = _parsed(line)
                    stratum = (stage, source_of(record, sources), record["reason"])
                    found.counts[stratum] += 1
                    places = found.places.setdefault(stratum, [])
                    if len(places) < keep:
                        places.append((path, place))
                    elif (slot := chance.randrange(found.counts[stratum])) < keep:
                        places[slot] = (path, place)
                    place += len(line)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CacheError(f"{path}: missing or damaged; run `dataprep {stage}` again") from error
    return found


def sample_lines(found: Quarantined, number: int) -> list[tuple[str, dict[str, Any]]]:
    """About `number` lines with their stage: of each stratum in turn, so that all show as long as there is room."""
    strata = sorted(found.places)
    chosen: list[tuple[Stratum, tuple[Path, int]]] = []
    depth = 0
    while len(chosen) < number and depth < max((len(places) for places in found.places.values()), default=0):
        chosen += [(stratum, found.places[stratum][depth]) for stratum in strata if depth < len(found.places[stratum])]
        depth += 1
    lines = []
    for (stage, _, _), (path, place) in sorted(chosen[:number]):
        with path.open("rb") as file:
            file.seek(place)
            lines.append((stage, _parsed(file.readline())))
    return lines


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        return orjson.loads(line)
    except ValueError:  # half of a surrogate pair, which stands in the file as it stood in the row
        record = json.loads(line)
        return {name: _whole(value) if isinstance(value, str) else value for name, value in record.items()}


def _whole(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def source_of(record: Mapping[str, Any], sources: Mapping[str, str]) -> str:
    """The source of a quarantined row; of a file that `sources` doesn't know, the file's name without its ending."""
    file = record["file"]
    return record.get("source") or sources.get(file) or PurePath(file).stem
