"""What `dataprep normalize` was told: settled once from the command line, the same for every row."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from dataprep.stages.normalize.mapping import Shape
from dataprep.stages.normalize.message import ROLE_NAMES


@dataclass(frozen=True, kw_only=True, slots=True)
class Settings:
    """How rows are read and cleaned; `roles` is the whole table of role names."""

    format: str | None = None
    roles: Mapping[str, str] = field(default_factory=lambda: ROLE_NAMES)
    shapes: tuple[Shape, ...] = ()  # of a mapping file; tried before the format
    preference: str = "chosen"  # of preference rows: chosen | rejected | both
    paths: str = "best"  # of trees: best | top | all
    clean: Mapping[str, str] = field(default_factory=dict)  # step -> value; every step is there
    pii: str = "off"  # off | count | redact | drop
