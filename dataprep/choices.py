"""What the user chose for `dataprep normalize`, checked, as the settings that rows are read and cleaned by."""

from dataclasses import dataclass, field

from dataprep.stages.normalize.convert import checked_format, role_names
from dataprep.stages.normalize.settings import Settings
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
    preference: str = "chosen"
    paths: str = "best"
    encoding: str | None = None
    clean: list[str] = field(default_factory=list)  # STEP or STEP=VALUE
    pii: str = "off"


def settle(choices: Choices) -> tuple[Settings, NormalizeOptions]:
    """Check what was chosen; gives it as settings and as the manifest records it. Raises InputError naming the flag."""
    for flag, value, known in (
        ("--preference", choices.preference, PREFERENCES),
        ("--paths", choices.paths, PATHS),
        ("--pii", choices.pii, PII_MODES),
    ):
        if value not in known:
            raise InputError(f"{flag} {value}: expected one of {', '.join(known)}")
    settings = Settings(
        format=checked_format(choices.format),
        roles=role_names(choices.roles),
        preference=choices.preference,
        paths=choices.paths,
        clean={"duplicates": "drop"} | dict(step.split("=", 1) for step in choices.clean),
        pii=choices.pii,
    )
    options = NormalizeOptions(
        format=choices.format,
        roles=choices.roles,
        preference=choices.preference,
        paths=choices.paths,
        encoding=choices.encoding,
        mapping=None,
        clean=dict(settings.clean),
        pii=choices.pii,
        held_out=[],
    )
    return settings, options
