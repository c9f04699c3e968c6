"""Raw files that a manifest names, in; whether they are still as they were read, out. Bytes are read only in doubt."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dataprep.core.sizes import size_text
from schemas.files import sha256_file
from schemas.manifest import InputFile


@dataclass(frozen=True, kw_only=True, slots=True)
class InputState:
    """What became of a raw file since it was read."""

    file: InputFile
    same: bool | None  # None: it can't be told
    note: str


def input_states(inputs: Sequence[InputFile], read_at: float) -> list[InputState]:
    """Compare files with what was read of them before `read_at`, in seconds since 1970."""
    return [_state(file, read_at) for file in inputs]


def _state(file: InputFile, read_at: float) -> InputState:
    if file.path == "-":
        return InputState(file=file, same=None, note="standard input, gone")
    if file.path.startswith("hf://"):
        return InputState(file=file, same=None, note="of the hub, not looked at")
    path = Path(file.path)
    if not path.exists():
        return _within_archive(file, path, read_at)
    stat = path.stat()
    if stat.st_size != file.bytes and path.suffix not in (".gz", ".bz2", ".xz", ".zst"):
        return InputState(file=file, same=False, note=f"changed since: {stat.st_size:,} bytes, were {file.bytes:,}")
    if stat.st_mtime < read_at:
        return InputState(file=file, same=True, note="as it was: not written to since")
    if sha256_file(path) == file.sha256:
        return InputState(file=file, same=True, note="as it was: written to since, with the same sha256")
    return InputState(file=file, same=False, note="changed since: another sha256")


def _within_archive(file: InputFile, path: Path, read_at: float) -> InputState:
    """A name such as `archive.zip/member.jsonl`, or of a file that isn't there."""
    archive = next((parent for parent in path.parents if parent.is_file()), None)
    if archive is None:
        return InputState(file=file, same=False, note=f"not there, looked for from {Path.cwd()}")
    same = archive.stat().st_mtime < read_at
    note = "was not written to since" if same else "was written to since"
    return InputState(file=file, same=True if same else None, note=f"{archive.name} {note}")


def input_lines(states: Sequence[InputState], most: int) -> list[str]:
    """A line for each of the first files, those that changed before the others."""
    ordered = sorted(states, key=lambda state: state.same is not False)
    lines = [f"{state.file.path} ({size_text(state.file.bytes)}): {state.note}" for state in ordered[:most]]
    rest = ordered[most:]
    if rest:
        changed = sum(state.same is False for state in rest)
        lines.append(
            f"and {len(rest):,} more files, {changed:,} of them changed" if changed else f"and {len(rest):,} more files"
        )
    return lines
