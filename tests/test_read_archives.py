"""Reading the members of .zip and .tar files."""

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.normalize.run import normalize_corpus
from dataprep.stages.normalize.reasons import TurnedAway
from dataprep.stages.read import archives
from dataprep.stages.read.cut import cut
from dataprep.stages.read.inputs import RawFile, find_files
from dataprep.stages.read.rows import read_rows
from schemas.errors import InputError


def zstd(data: bytes) -> bytes:
    return pa.compress(data, codec="zstd", asbytes=True)


PACK: dict[str, Callable[[bytes], bytes]] = {
    "zip": bytes,
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tgz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
    "tar.zst": zstd,
}
TWO = b'{"text": "one"}\n{"text": "two"}\n'
ROWS = [(1, {"text": "one"}), (2, {"text": "two"})]


def packed(path: Path, members: dict[str, bytes]) -> Path:
    """Write an archive of the kind that the path ends in."""
    kind = path.name.partition(".")[2]
    held = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(fileobj=held, mode="w") as archive:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    path.write_bytes(PACK[kind](held.getvalue()))
    return path


def found(path: Path) -> list[RawFile]:
    return find_files([str(path)], leave_out=Path("cache"))


def rows_of(path: Path) -> dict[str, list[tuple]]:
    """Read all rows of each member; one that was turned away shows as (number, reason)."""
    rows: dict[str, list[tuple]] = {}
    for file in found(path):
        name = file.name.removeprefix(path.as_posix() + "/")
        rows[name] = [
            (number, value.reason if isinstance(value, TurnedAway) else value)
            for segment in cut(file, sha256())
            for number, value, _ in read_rows(segment)
        ]
    return rows


@pytest.mark.parametrize("kind", PACK)
def test_members_that_can_be_read_are_files_of_their_own(tmp_path: Path, kind: str) -> None:
    members = {
        "b/chats.jsonl": TWO,
        "a/list.json": b'[{"text": "one"}, {"text": "two"}]',
        "table.csv": b"text\none\ntwo\n",
        "c/inner.jsonl.gz": gzip.compress(TWO),
        "README.md": b"# Words",
        "LICENSE.txt": b"Words",
        ".hidden.jsonl": TWO,
        "__MACOSX/b/._chats.jsonl": TWO,
        "empty.jsonl": b"",
    }
    read = rows_of(packed(tmp_path / f"a.{kind}", members))
    assert read == {
        "b/chats.jsonl": ROWS,
        "a/list.json": ROWS,
        "table.csv": [(2, {"text": "one"}), (3, {"text": "two"})],
        "c/inner.jsonl.gz": ROWS,
        "empty.jsonl": [],
    }
    in_order = [name for name in members if name in read]
    assert list(read) == (sorted(in_order) if kind == "zip" else in_order)
    assert [file.source for file in found(tmp_path) if "inner" in file.name] == ["inner"]


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize("ending", ["parquet", "file.arrow", "stream.arrow"])
def test_parquet_and_arrow_members_are_read_and_nothing_is_left_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, ending: str
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(spool))
    monkeypatch.setattr("dataprep.stages.read.cut.SEGMENT_ROWS", 3)
    table = pa.table({"text": [f"page {number}" for number in range(8)], "other": range(8)})
    held = io.BytesIO()
    if ending == "parquet":
        pq.write_table(table, held, row_group_size=3)
    else:
        with (pa.ipc.new_file if ending.startswith("file") else pa.ipc.new_stream)(held, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    path = packed(tmp_path / f"a.{kind}", {f"data.{ending}": held.getvalue(), "b.jsonl": TWO})
    read = rows_of(path)
    assert read[f"data.{ending}"] == [(number + 1, {"text": f"page {number}"}) for number in range(8)]
    assert read["b.jsonl"] == ROWS
    assert list(spool.iterdir()) == []


def test_a_damaged_row_group_in_an_archive_costs_its_rows(tmp_path: Path) -> None:
    table = pa.table({"text": [os.urandom(50).hex() for _ in range(4)]})
    held = io.BytesIO()
    pq.write_table(table, held, row_group_size=2, compression="zstd", use_dictionary=False)
    data = bytearray(held.getvalue())
    data[30:150] = bytes(120)
    rows = rows_of(packed(tmp_path / "a.zip", {"a.parquet": bytes(data)}))["a.parquet"]
    assert rows[:2] == [(1, "unreadable-rows"), (2, "unreadable-rows")]
    assert rows[2:] == [(3, {"text": table["text"][2].as_py()}), (4, {"text": table["text"][3].as_py()})]


def test_documents_are_read_only_where_an_archive_holds_nothing_else(tmp_path: Path) -> None:
    assert rows_of(packed(tmp_path / "a.zip", {"x.txt": b"One.", "notes.md": b"x"})) == {
        "x.txt": [(1, {"text": "One."})]
    }
    assert list(rows_of(packed(tmp_path / "b.zip", {"x.txt": b"One.", "a.jsonl": TWO}))) == ["a.jsonl"]


def test_a_saved_dataset_in_an_archive_is_read_without_its_descriptions(tmp_path: Path) -> None:
    held = io.BytesIO()
    with pa.ipc.new_stream(held, pa.schema({"text": pa.string()})) as writer:
        writer.write_table(pa.table({"text": ["one", "two"]}))
    members = {"x/state.json": b"{}", "x/dataset_info.json": b"{}", "x/data-0.arrow": held.getvalue()}
    assert rows_of(packed(tmp_path / "a.tar", members)) == {"x/data-0.arrow": ROWS}


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_names_that_lead_outside_are_passed_over_and_no_file_is_written(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "here"
    folder.mkdir()
    members = {"../../evil.jsonl": TWO, "/abs.jsonl": TWO, "./good.jsonl": TWO}
    names = list(rows_of(packed(folder / f"a.{kind}", members)))
    assert [name.removeprefix("./") for name in names if "good" in name] == ["good.jsonl"]
    assert not any(".." in name for name in names)
    assert [path.name for path in tmp_path.rglob("*.jsonl")] == []


def test_links_in_a_tar_are_no_files(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("a.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
        info = tarfile.TarInfo("b.jsonl")
        info.size = len(TWO)
        archive.addfile(info, io.BytesIO(TWO))
    assert rows_of(tmp_path / "a.tar") == {"b.jsonl": ROWS}


@pytest.mark.parametrize("kind", PACK)
def test_an_archive_without_a_file_to_read_says_what_it_holds(tmp_path: Path, kind: str) -> None:
    path = packed(tmp_path / f"a.{kind}", {"a.png": b"x", "b.png": b"x", "c.png": b"x", "d.png": b"x"})
    with pytest.raises(InputError, match=rf"a.{kind}: no .* file in it; it holds a.png, b.png, c.png and 1 more$"):
        found(path)
    with pytest.raises(InputError, match=r"only archives that hold no .* file; name a folder or file with rows"):
        found(tmp_path)
    (tmp_path / "chats.jsonl").write_bytes(TWO)
    assert [file.path.name for file in found(tmp_path)] == ["chats.jsonl"]


@pytest.mark.parametrize("kind", PACK)
def test_a_damaged_archive_is_one_error(tmp_path: Path, kind: str) -> None:
    data = os.urandom(40_000).hex().encode()
    path = packed(tmp_path / f"a.{kind}", {"a.jsonl": data, "b.jsonl": data})
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"no archive at all" * 100, b"x"):
        path.write_bytes(damaged)
        with pytest.raises(
            InputError, match=rf"a.{kind}: not a whole archive: .*; pack or download it again"
        ) as caught:
            rows_of(path)
        assert "\n" not in str(caught.value)


def test_a_member_whose_checksum_differs_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jsonl", TWO)
    path.write_bytes(path.read_bytes().replace(b"one", b"ONE"))
    with pytest.raises(InputError, match=r"a.zip: not a whole archive: Bad CRC-32"):
        rows_of(path)


def test_an_encrypted_archive_is_one_error(tmp_path: Path) -> None:
    path = packed(tmp_path / "a.zip", {"a.jsonl": TWO})
    content = bytearray(path.read_bytes())
    content[6] |= 1  # the local header's flags, and the directory's
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a.zip: encrypted; unpack it with its password and name the folder"):
        found(path)


def test_of_members_with_the_same_name_the_last_counts(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for data in (b'{"text": "old"}\n', TWO):
            info = tarfile.TarInfo("a.jsonl")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    assert rows_of(tmp_path / "a.tar") == {"a.jsonl": ROWS}


def test_a_compressed_tar_is_unpacked_once_for_the_list_and_once_for_the_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = packed(tmp_path / "a.tar.gz", {f"{number}.jsonl": TWO for number in range(50)})
    opened = []
    once = archives._Unpacked.__init__
    monkeypatch.setattr(archives._Unpacked, "__init__", lambda self, *given: opened.append(1) or once(self, *given))
    assert list(rows_of(path).values()) == [ROWS] * 50
    assert len(opened) == 2


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_the_number_of_workers_does_not_change_what_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setattr("dataprep.normalize.share.UNIT_BYTES", 100)
    table = io.BytesIO()
    pq.write_table(pa.table({"text": ["three", "four"]}), table)
    members = {
        f"{number}.jsonl": TWO.replace(b"one", b"%d" % number).replace(b"two", b"-%d" % number) for number in range(9)
    }
    path = packed(tmp_path / f"a.{kind}", members | {"t.parquet": table.getvalue()})
    manifests = [normalize_corpus([str(path)], tmp_path / str(n), workers=n) for n in (1, 2)]
    assert manifests[0] == manifests[1]
    assert manifests[0].kept == 20
    assert manifests[0].inputs[0].path == f"{path.as_posix()}/0.jsonl"
    assert manifests[0].inputs[0].sha256 == sha256(members["0.jsonl"]).hexdigest()
