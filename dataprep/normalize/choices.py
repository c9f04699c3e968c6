"""What the user chose for `dataprep normalize`, checked, as the settings that rows are read and cleaned by."""

import os
from dataclasses import dataclass, field
from pathlib import Path

from dataprep.stages.clean.personal import make_personal
from dataprep.stages.clean.steps import settled_steps
from dataprep.stages.normalize.convert import checked_format, columns_read, role_names
from dataprep.stages.normalize.mapping import Shape, read_mapping
from dataprep.stages.normalize.settings import Settings
from dataprep.stages.read.encodings import checked_encoding
from dataprep.stages.read.inputs import STDIN, RawFile, find_files
from schemas.errors import InputError
from schemas.manifest import NormalizeOptions

PREFERENCES = ("chosen", "rejected", "both")
PATHS = ("best", "top", "all")
PII_MODES = ("off", "count", "redact", "drop")


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """The command line of `dataprep normalize` but for its inputs; the defaults are the command's."""

    format: str | None = None
    roles: dict[str, str] = field(default_factory=dict)
    mapping: Path | None = None
    preference: str = "chosen"
    paths: str = "best"
    encoding: str | None = None
    clean: list[str] = field(default_factory=list)  # STEP or STEP=VALUE
    pii: str = "off"
    held_out: list[str] = field(default_factory=list)  # inputs as `dataprep normalize` takes them


@dataclass(frozen=True, kw_only=True, slots=True)
class Settled:
    """Choices that were found good: as settings, and as the manifest records them."""

    settings: Settings
    options: NormalizeOptions
    columns: tuple[str, ...]  # that are read of tables
    held_out: list[RawFile]


def settle(choices: Choices) -> Settled:
    """Check what was chosen. Raises InputError naming the flag."""
    for flag, value, known in (
        ("--preference", choices.preference, PREFERENCES),
        ("--paths", choices.paths, PATHS),
        ("--pii", choices.pii, PII_MODES),
    ):
        if value not in known:
            raise InputError(f"{flag} {value}: expected one of {', '.join(known)}")
    make_personal(choices.pii)  # where a library for it is missing, now is the time to say so
    settings = Settings(
        format=checked_format(choices.format),
        roles=role_names(choices.roles),
        shapes=_shapes(choices.mapping) if choices.mapping else (),
        preference=choices.preference,
        paths=choices.paths,
        clean=settled_steps(choices.clean),
        pii=choices.pii,
    )
    options = NormalizeOptions(
        format=choices.format,
        roles=choices.roles,
        mapping=choices.mapping.read_text(encoding="utf-8") if choices.mapping else None,
        preference=choices.preference,
        paths=choices.paths,
        encoding=checked_encoding(choices.encoding),
        clean=dict(settings.clean),
        pii=choices.pii,
        held_out=[os.fsencode(given).decode("utf-8", "replace") for given in choices.held_out],
    )
    columns = columns_read(settings)
    for counted in ("turns", "chars"):
        least, most = settings.clean[f"min-{counted}"], settings.clean[f"max-{counted}"]
        if "off" not in (least, most) and int(least) > int(most):
            raise InputError(f"--clean min-{counted}={least}: above max-{counted}={most}, so no row is kept; lower it")
    if STDIN in choices.held_out:
        raise InputError("--held-out -: standard input is for INPUT; write the rows to a file and name it")
    held_out = find_files(choices.held_out, leave_out=Path()) if choices.held_out else []
    return Settled(settings=settings, options=options, columns=columns, held_out=held_out)


def _shapes(mapping: Path) -> tuple[Shape, ...]:
    try:
        return read_mapping(mapping)
    except RecursionError as error:
        raise InputError(f"--mapping {mapping}: nested too deep; a shape is a flat table under [[shape]]") from error
