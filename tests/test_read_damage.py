"""Damaged files of every kind: reading them ends, with rows or with one InputError of one line."""

import gzip
import io
import json
import lzma
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataprep.stages.cut import cut
from dataprep.stages.inputs import find_files
from dataprep.stages.read import read_rows
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
