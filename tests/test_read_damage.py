"""Damaged files of every kind: reading them ends, with rows or with one InputError of one line."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataprep.normalize.run import normalize_corpus, retry_quarantine
from dataprep.normalize.summary import summary_text
from dataprep.stages.read.cut import cut
from dataprep.stages.read.inputs import find_files
from dataprep.stages.read.rows import read_rows
from schemas.errors import InputError

LINES = b'{"text": "one"}\n{"text": "two"}\n' * 5
TABLE = pa.table({"text": ["one", "two"] * 10})


def parquet() -> bytes:
    held = io.BytesIO()
    pq.write_table(TABLE, held, row_group_size=6)
    return held.getvalue()


def arrow() -> bytes:
    held = io.BytesIO()
    with pa.ipc.new_stream(held, TABLE.schema) as writer:
        writer.write_table(TABLE, max_chunksize=6)
    return held.getvalue()


def zipped() -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (("a.jsonl", LINES), ("b.parquet", parquet()), ("c.arrow", arrow())):
            archive.writestr(name, data)
    return held.getvalue()


def tarred() -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for name, data in (("a.jsonl.gz", gzip.compress(LINES)), ("b.parquet", parquet())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return held.getvalue()


SOUND = {
    "jsonl": LINES,
    "json": json.dumps({"train": [{"text": "a"}] * 5, "test": [{"text": "b"}]}).encode(),
    "csv": b'text,b\na,"b\nc"\n',
    "txt": b"One.\n\nTwo.",
    "parquet": parquet(),
    "arrow": arrow(),
    "json.xz": lzma.compress(LINES),
    "zip": zipped(),
    "tar": tarred(),
    "tar.gz": gzip.compress(tarred(), mtime=0),
    "log": LINES,
}


@pytest.mark.parametrize("kind", SOUND)
@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damage_costs_rows_or_is_one_error(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    content = bytearray(SOUND[kind])
    for _ in range(data.draw(st.integers(1, 5))):
        place = data.draw(st.integers(0, len(content)))
        content[place : place + data.draw(st.integers(0, 20))] = data.draw(st.binary(max_size=8))
    path = tmp_path / f"a.{kind}"
    path.write_bytes(content)
    numbers = []
    try:
        for file in find_files([str(path)], leave_out=tmp_path / "out"):
            for segment in cut(file, sha256()):
                numbers += [(segment.file.name, number) for number, _, _ in read_rows(segment)]
    except InputError as error:
        assert str(error).startswith(path.as_posix())
        assert "\n" not in str(error)
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(
    ("name", "packed", "remedy"),
    [
        ("a.jsonl", gzip.compress(b"A page.", mtime=0), "begins as a .gz file; rename it to end in .jsonl.gz"),
        ("a.json", bz2.compress(b'{"text": "A page."}\n'), "begins as a .bz2 file; rename it to end in .json.bz2"),
        ("a.csv", b"PAR1\x15\x04\x15\0", "begins as a .parquet file; rename it to end in .parquet"),
        ("a.jsonl", b"PK\x03\x04\x14\0", "begins as a .zip file; rename it to end in .zip"),
        ("a.jsonl.gz", gzip.compress(gzip.compress(b"{}", mtime=0), mtime=0), "begins as a .gz file; unpack it"),
    ],
)
def test_a_file_with_the_ending_of_another_kind_is_named_for_what_it_is(tmp_path, name, packed, remedy):
    (tmp_path / name).write_bytes(packed)
    with pytest.raises(InputError) as caught:
        normalize_corpus([str(tmp_path / name)], tmp_path / "cache")
    assert str(caught.value) == f"{tmp_path / name}: {remedy}"


def test_text_may_begin_like_a_file_of_another_kind(tmp_path):
    (tmp_path / "a.csv").write_text("PAR1,question,answer\n1,Is it par?,It is.\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("BZh9 is how such files begin.\n", encoding="utf-8")
    manifest = normalize_corpus([str(tmp_path / "a.csv"), str(tmp_path / "b.txt")], tmp_path / "cache")
    assert (manifest.kept, manifest.turned_away) == (2, {})


def test_a_row_with_half_a_surrogate_pair_in_a_key_is_listed_so_that_any_reader_can_read_it(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"na\xefve,b\n1,2\n")
    (tmp_path / "b.json").write_bytes(rb'{"rows": [{"\ud800": 1}], "k\udfff": [{"text": "A page."}]}')
    manifest = normalize_corpus([str(tmp_path / "a.csv"), str(tmp_path / "b.json")], tmp_path / "cache")
    quarantine = tmp_path / "cache" / "conversations" / manifest.quarantine.file
    records = [orjson.loads(line) for line in quarantine.read_bytes().splitlines()]
    assert len(records) == sum(manifest.turned_away.values())
    assert "rows" in summary_text(manifest, tmp_path / "cache")
    assert retry_quarantine(quarantine, tmp_path / "cache").turned_away == manifest.turned_away
