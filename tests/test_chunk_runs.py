import pyarrow as pa

from dataprep.core.chunks import Chunk
from dataprep.tokenize import fill
from dataprep.tokenize.fill import _runs


def test_chunks_are_tokenised_together_up_to_a_bound_of_bytes(monkeypatch) -> None:
    monkeypatch.setattr(fill, "BYTES_AT_ONCE", 120)
    table = pa.table({"messages": ["a" * 40, "b" * 40, "c" * 400, "d" * 10, "e" * 10]})
    chunks = [Chunk(start=7 + row, stop=8 + row, key=str(row)) for row in range(5)]
    assert [[chunk.key for chunk in run] for run in _runs(table, chunks)] == [["0", "1"], ["2"], ["3", "4"]]
