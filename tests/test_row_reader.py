"""Reading rows from front to back in pieces: all of them, and each row group decoded once."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.core.columns import RowReader
from dataprep.normalize.run import normalize_corpus
from schemas.manifest import Artefact


def test_pieces_meet_in_row_groups_that_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = tmp_path / "raw.jsonl"
    raw.write_text('{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n')
    normalized = normalize_corpus([str(raw)], tmp_path / "cache", workers=1)
    parts = []
    for name, first, sizes in (("a", 0, (3, 2)), ("b", 5, (4,)), ("c", 9, (1, 3))):
        with pq.ParquetWriter(tmp_path / name, pa.schema([("number", pa.int64())])) as writer:
            for size in sizes:
                writer.write_table(pa.table({"number": list(range(first, first + size))}))
                first += size
        parts.append(Artefact(file=name, rows=sum(sizes), bytes=0, sha256=""))
    manifest = replace(normalized, parts=parts)
    decoded = []
    read = pq.ParquetFile.read_row_group

    def noted(self: pq.ParquetFile, number: int, **options: object) -> pa.Table:
        table = read(self, number, **options)
        decoded.append(table.column("number")[0].as_py())
        return table

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", noted)
    reader = RowReader(tmp_path, manifest, ["number"])
    pieces = [(0, 2), (2, 4), (4, 6), (6, 7), (7, 11), (11, 13)]
    assert [reader.rows(*piece).column("number").to_pylist() for piece in pieces] == [list(range(*p)) for p in pieces]
    assert decoded == [0, 3, 5, 9, 10]
    assert reader.rows(1, 12).column("number").to_pylist() == list(range(1, 12))
