import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dataprep.core.lock import locked
from dataprep.normalize.run import normalize_corpus
from dataprep.normalize.unchanged import Unchanged
from dataprep.stages.inputs import find_files
from schemas.errors import CacheError, InputError
from schemas.manifest import read_conversations_manifest

ROW = '{"question": "Is the kiln hot?", "answer": "At %d degrees."}\n'
DATAPREP = [sys.executable, "-m", "dataprep.cli"]


def raw_file(folder: Path, rows: int = 3, name: str = "raw.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(ROW % number for number in range(rows)), encoding="utf-8")
    return path


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_second_run_at_once_is_refused_by_the_number_of_the_first(tmp_path):
    (tmp_path / "cache").mkdir()
    with (
        locked(tmp_path / "cache"),
        pytest.raises(CacheError, match=rf"another run \(process {os.getpid()}\) is writing to it"),
    ):
        normalize_corpus([str(raw_file(tmp_path))], tmp_path / "cache")
    assert normalize_corpus([str(raw_file(tmp_path))], tmp_path / "cache").kept == 3


def test_what_a_killed_run_left_is_gone_after_the_next_and_the_bytes_are_the_same(tmp_path):
    raw, folder = raw_file(tmp_path), tmp_path / "cache" / "conversations"
    normalize_corpus([str(raw)], tmp_path / "cache")
    undisturbed = files_in(folder)
    for name in ("part-00001-01234567.parquet", ".unit-7-00001.parquet", "..unit-7-00001.parquet.8.tmp"):
        (folder / name).write_bytes(b"left")
    normalize_corpus([str(raw)], tmp_path / "cache")
    assert files_in(folder) == undisturbed


def test_a_run_that_fails_leaves_what_was_there_and_nothing_else(tmp_path, monkeypatch):
    raw, folder = raw_file(tmp_path), tmp_path / "cache" / "conversations"
    normalize_corpus([str(raw)], tmp_path / "cache")
    before = files_in(folder)
    monkeypatch.setattr("dataprep.normalize.share.UNIT_ROWS", 1)
    broken = tmp_path / "z.jsonl.gz"
    broken.write_bytes(b"\x1f\x8b\x08\x00no deflate")
    with pytest.raises(InputError, match=r"not a whole \.gz file"):
        normalize_corpus([str(raw_file(tmp_path, 9, "more.jsonl")), str(broken)], tmp_path / "cache", workers=1)
    assert files_in(folder) == before
    with pytest.raises(InputError, match=r"not a whole \.gz file"):
        normalize_corpus([str(raw), str(broken)], tmp_path / "new", workers=1)
    assert files_in(tmp_path / "new" / "conversations") == {}


@pytest.mark.parametrize(
    ("number", "line"),
    [(signal.SIGINT, "dataprep: interrupted; run the same command again to go on\n"), (signal.SIGKILL, "")],
)
def test_a_run_that_is_stopped_leaves_no_manifest_and_the_next_one_is_whole(tmp_path, number, line):
    raw, folder = raw_file(tmp_path, 400_000), tmp_path / "cache" / "conversations"
    command = [*DATAPREP, "normalize", str(raw), "--out", str(tmp_path / "cache"), "--workers", "2"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, start_new_session=True, preexec_fn=_heeds_interrupts
    ) as run:
        while not (folder.is_dir() and any(folder.iterdir())):
            assert run.poll() is None
            time.sleep(0.01)
        for _ in range(2):
            os.killpg(run.pid, number)
            time.sleep(0.1)
        assert run.communicate(timeout=60)[1] == line
    assert not (folder / "manifest.json").exists()
    if number == signal.SIGINT:
        assert files_in(folder) == {}
    small = raw_file(tmp_path, 5)
    manifest = normalize_corpus([str(small)], tmp_path / "cache")
    assert set(files_in(folder)) == {"manifest.json", manifest.quarantine.file, *(part.file for part in manifest.parts)}


def _heeds_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.mark.parametrize("change", ["truncated", "replaced"])
def test_a_file_that_is_changed_while_it_is_read_is_refused(tmp_path, change):
    raw = raw_file(tmp_path, 50)
    unchanged = Unchanged(find_files([str(raw)], leave_out=tmp_path / "out"))
    if change == "truncated":
        os.truncate(raw, 100)
    else:
        raw_file(tmp_path, 50, "other").replace(raw)
    with pytest.raises(InputError, match=r"raw\.jsonl: was changed while it was read; run it again when"):
        unchanged.check()


def test_a_file_that_only_grows_while_it_is_read_or_goes_after_it_is_no_error(tmp_path):
    raw = raw_file(tmp_path, 50)
    unchanged = Unchanged(find_files([str(raw)], leave_out=tmp_path / "out"))
    with raw.open("a", encoding="utf-8") as file:
        file.write(ROW % 99)
    unchanged.check()
    raw.unlink()
    unchanged.check()


def test_files_of_the_folder_that_is_written_to_are_no_input(tmp_path):
    (tmp_path / "raw.jsonl").write_text(ROW % 1 + "oops\n", encoding="utf-8")
    manifest = normalize_corpus([str(tmp_path / "raw.jsonl")], tmp_path / "cache")
    quarantine = tmp_path / "cache" / "conversations" / manifest.quarantine.file
    with pytest.raises(InputError, match=r"lies in the folder that is written to; choose another --out, or take up"):
        normalize_corpus([str(quarantine)], tmp_path / "cache")
    assert read_conversations_manifest(quarantine.parent) == manifest


def test_caches_in_the_input_are_passed_over(tmp_path):
    raw_file(tmp_path)
    normalize_corpus([str(tmp_path)], tmp_path / "old")
    for made in ("shards", "tokens"):
        (tmp_path / "old" / made).mkdir()
        (tmp_path / "old" / made / "x.arrow").write_bytes(b"no Arrow")
    for given in (str(tmp_path), f"{tmp_path}/**/*"):
        for out in ("old", "new"):
            manifest = normalize_corpus([given], tmp_path / out)
            assert [file.path for file in manifest.inputs] == [str(tmp_path / "raw.jsonl")]


def test_a_name_that_parquet_cannot_write_to_is_refused_at_once(tmp_path):
    with pytest.raises(InputError, match="the name is not UTF-8; choose another"):
        normalize_corpus([str(raw_file(tmp_path))], Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")))
