"""Reading Arrow files and streams, and folders that `datasets` saved."""

from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pytest

from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.read import cut as cutting
from dataprep.stages.read.cut import cut
from dataprep.stages.read.inputs import Segment, find_files
from dataprep.stages.read.rows import read_rows
from schemas.errors import InputError

OPENED = {"file": pa.ipc.new_file, "stream": pa.ipc.new_stream}
PAGES = pa.table({"when": pa.array([2**62] * 7, pa.timestamp("us")), "text": [f"page {n}" for n in range(1, 8)]})


def segments_of(given: Path) -> list[Segment]:
    return [segment for file in find_files([str(given)], leave_out=Path("cache")) for segment in cut(file, sha256())]


def rows_of(given: Path) -> list[tuple]:
    """Read all rows; one that was turned away shows as (number, reason, detail)."""
    return [
        (number, value.reason, value.detail) if isinstance(value, TurnedAway) else (number, value)
        for segment in segments_of(given)
        for number, value, _ in read_rows(segment)
    ]


def saved(path: Path, table: pa.Table, kind: str = "stream", batch_rows: int = 3) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with OPENED[kind](str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=batch_rows)
    return path


@pytest.mark.parametrize("kind", OPENED)
def test_arrow_rows_count_from_one_over_all_batches(tmp_path: Path, kind: str) -> None:
    expected = [(number, {"text": f"page {number}"}) for number in range(1, 8)]
    assert rows_of(saved(tmp_path / "a.arrow", PAGES, kind)) == expected


@pytest.mark.parametrize("kind", OPENED)
@pytest.mark.parametrize("segment_rows", [1, 2, 3, 4, 5, 7])
def test_arrow_is_cut_inside_and_across_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, segment_rows: int
) -> None:
    path = saved(tmp_path / "a.arrow", PAGES, kind)
    monkeypatch.setattr(cutting, "SEGMENT_ROWS", segment_rows)
    segments = segments_of(path)
    assert sum(segment.rows for segment in segments) == 7
    assert len(segments) == 1 or segment_rows < 7
    assert rows_of(path) == [(number, {"text": f"page {number}"}) for number in range(1, 8)]


@pytest.mark.parametrize("kind", OPENED)
def test_an_arrow_file_without_rows_holds_none(tmp_path: Path, kind: str) -> None:
    assert rows_of(saved(tmp_path / "a.arrow", PAGES.slice(0, 0), kind)) == []
    (tmp_path / "b.arrow").write_bytes(b"")
    assert rows_of(tmp_path / "b.arrow") == []


def test_text_in_arrow_that_is_not_utf_8_costs_that_row_only(tmp_path: Path) -> None:
    binary = pa.array([b"good", b"\xd6\xd0", b"fine"], pa.binary())
    assert rows_of(saved(tmp_path / "a.arrow", pa.table({"text": binary.cast(pa.string(), safe=False)}))) == [
        (1, {"text": "good"}),
        (2, "bad-encoding", "byte 0xd6 at position 1 is not UTF-8"),
        (3, {"text": "fine"}),
    ]


@pytest.mark.parametrize("kind", OPENED)
def test_an_arrow_file_that_ends_early_is_an_error(tmp_path: Path, kind: str) -> None:
    path = saved(tmp_path / "a.arrow", PAGES, kind)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(InputError, match=r"a.arrow: not a whole Arrow file: .*; write or download it again"):
        rows_of(path)


def test_a_file_that_is_no_arrow_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.arrow").write_bytes(b"not really")
    with pytest.raises(InputError, match=r"a.arrow: not a whole Arrow file: "):
        rows_of(tmp_path / "a.arrow")


def saved_dataset(folder: Path) -> Path:
    saved(folder / "b.arrow", pa.table({"text": ["one"]}))
    saved(folder / "a.arrow", pa.table({"text": ["two"]}))
    saved(folder / "left-over.arrow", pa.table({"text": ["three"]}))
    (folder / "state.json").write_text('{"_data_files": [{"filename": "b.arrow"}, {"filename": "a.arrow"}]}')
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_a_saved_dataset_is_read_in_the_order_of_its_state_and_named_after_its_folder(tmp_path: Path) -> None:
    saved_dataset(tmp_path / "chats" / "train")
    (tmp_path / "chats" / "dataset_dict.json").write_text('{"splits": ["train"]}')
    for given in (tmp_path / "chats", tmp_path / "chats" / "train"):
        assert rows_of(given) == [(1, {"text": "one"}), (1, {"text": "two"})]
        files = find_files([str(given)], leave_out=tmp_path / "out")
        assert [(file.path.name, file.source) for file in files] == [("b.arrow", "train"), ("a.arrow", "train")]


def test_a_saved_dataset_that_is_not_whole_is_an_error(tmp_path: Path) -> None:
    folder = saved_dataset(tmp_path / "chats")
    (folder / "a.arrow").unlink()
    with pytest.raises(InputError, match=r"a.arrow: no such file, though state.json names it; copy the whole folder"):
        rows_of(folder)
    (folder / "state.json").write_text("{}")
    with pytest.raises(InputError, match=r"state.json: names no data files; save the dataset again with save_to_disk"):
        rows_of(folder)


@pytest.mark.parametrize("kind", OPENED)
def test_a_damaged_batch_costs_its_rows_and_does_not_end_the_program(tmp_path: Path, kind: str) -> None:
    def text(*ends: int) -> pa.Array:
        offsets = pa.array([0, *ends], pa.int32()).buffers()[1]
        return pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"one\xfftwo")])

    def nested(inner: pa.Array) -> pa.Array:
        return pa.ListArray.from_arrays(
            pa.array([0, 1, 2], pa.int32()), pa.StructArray.from_arrays([inner], ["content"])
        )

    bad, odd, good = text(1 << 30, 4), text(4, 7), text(3, 3)
    for wrap in (lambda array: array, nested):
        batches = [pa.record_batch([wrap(array)], names=["messages"]) for array in (bad, odd, good)]
        with OPENED[kind](str(tmp_path / "a.arrow"), batches[0].schema) as writer:
            for batch in batches:
                writer.write_batch(batch)
        rows = rows_of(tmp_path / "a.arrow")
        assert [row[:2] for row in rows[:3]] == [(1, "unreadable-rows"), (2, "unreadable-rows"), (3, "bad-encoding")]
        assert rows[0][2].startswith("a damaged batch of rows: ")
        assert [number for number, *_ in rows[3:]] == [4, 5, 6]
