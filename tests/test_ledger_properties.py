"""Whatever is given to normalize, in whatever state: it ends in one line, or with a ledger that closes."""

import bz2
import gzip
import io
import json
import lzma
import tarfile
import tempfile
import zipfile
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dataprep.normalize.choices import Choices
from dataprep.normalize.run import normalize_corpus, retry_quarantine
from dataprep.normalize.summary import summary_text
from dataprep.stages.normalize.examples import EXAMPLES
from schemas.errors import SftpackError
from schemas.manifest import ConversationsManifest

ROWS = [json.loads(line) for line in EXAMPLES.values()]
LINES = b"".join(line.encode() + b"\n" for line in EXAMPLES.values())
TABLE = pa.table({"question": ["Is it hot?", "Is it cold?"] * 5, "answer": ["Yes.", "No.", *["Perhaps."] * 8]})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def zipped() -> bytes:
    with io.BytesIO() as file:
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.jsonl", LINES)
            archive.writestr("b/c.json", json.dumps(ROWS))
        return file.getvalue()


def tarred(mode: str) -> bytes:
    with io.BytesIO() as file:
        with tarfile.open(fileobj=file, mode=mode) as archive:
            member = tarfile.TarInfo("a.jsonl")
            member.size = len(LINES)
            archive.addfile(member, io.BytesIO(LINES))
        return file.getvalue()


def tabled(ending: str) -> bytes:
    sink = pa.BufferOutputStream()
    if ending == ".parquet":
        pq.write_table(TABLE, sink, row_group_size=4)
    else:
        with pa.ipc.new_file(sink, TABLE.schema) as writer:
            writer.write_table(TABLE, max_chunksize=4)
    return sink.getvalue().to_pybytes()


WHOLE = {
    ".jsonl": LINES,
    ".json": json.dumps(ROWS).encode(),
    ".csv": b'question,answer\n"Is it hot?","Yes, ""very""."\nIs it cold?,No.\n',
    ".tsv": b"question\tanswer\nIs it hot?\tYes.\n",
    ".txt": b"A page.\n\nAnother.\n",
    ".parquet": tabled(".parquet"),
    ".arrow": tabled(".arrow"),
    ".zip": zipped(),
    ".tar": tarred("w"),
    ".tar.gz": tarred("w:gz"),
    ".jsonl.gz": gzip.compress(LINES),
    ".jsonl.bz2": bz2.compress(LINES),
    ".jsonl.xz": lzma.compress(LINES),
    ".jsonl.zst": pa.compress(LINES, codec="zstd", asbytes=True),
}


def assert_closed(manifest: ConversationsManifest, out: Path) -> None:
    folder = out / "conversations"
    rejected = [orjson.loads(line) for line in (folder / manifest.quarantine.file).read_bytes().splitlines()]
    parts = [pq.read_table(folder / part.file, columns=["origin"]) for part in manifest.parts]
    origins = [origin for part in parts for origin in part.column("origin").to_pylist()]
    files = {file.path for file in manifest.inputs}
    assert manifest.rows + manifest.branched == manifest.kept + manifest.joined + sum(manifest.turned_away.values())
    assert len(rejected) == sum(manifest.turned_away.values()) == manifest.quarantine.rows
    assert len(origins) == manifest.kept == sum(manifest.formats.values()) == sum(manifest.sources.values())
    assert all(row["row"] >= 1 and row["file"].split("#")[0] in files for row in [*origins, *rejected])
    assert {path.name for path in folder.iterdir()} == {
        "manifest.json",
        manifest.quarantine.file,
        *(part.file for part in manifest.parts),
    }
    assert summary_text(manifest, out)


def normalized(ending: str, content: bytes, choices: Choices | None = None) -> ConversationsManifest | None:
    """Normalise a file of this content, and take up what was turned away; None where that ended in one line."""
    with tempfile.TemporaryDirectory() as folder:
        path, out = Path(folder) / f"a{ending}", Path(folder) / "cache"
        path.write_bytes(content)
        try:
            manifest = normalize_corpus([str(path)], out, workers=1, choices=choices)
        except SftpackError as error:
            assert len(str(error).splitlines()) == 1
            return None
        assert_closed(manifest, out)
        quarantine = out / "conversations" / manifest.quarantine.file
        again = retry_quarantine(quarantine, out, workers=1, choices=Choices(roles={"bot": "user"}, preference="both"))
        assert_closed(again, out)
        assert again.kept >= manifest.kept
        return manifest


@pytest.mark.parametrize("ending", WHOLE)
@FEW
@given(content=st.binary(max_size=300))
def test_random_bytes_end_in_one_line_or_in_a_ledger_that_closes(ending: str, content: bytes) -> None:
    normalized(ending, content)


@pytest.mark.parametrize("ending", WHOLE)
@FEW
@given(data=st.data())
def test_a_file_that_was_cut_off_or_changed_does_so_too(ending: str, data: st.DataObject) -> None:
    content = bytearray(WHOLE[ending])
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 1)) :]
    for place in data.draw(st.lists(st.integers(0, max(0, len(content) - 1)), max_size=3)):
        content[place : place + 1] = data.draw(st.binary(max_size=2))
    normalized(ending, bytes(content))


@FEW
@given(rows=st.lists(JSON | st.sampled_from(ROWS), max_size=6), ending=st.sampled_from([".jsonl", ".json"]))
def test_random_json_does_so_too(rows: list[object], ending: str) -> None:
    texts = [json.dumps(row) for row in rows]
    normalized(ending, ("[" + ",".join(texts) + "]" if ending == ".json" else "\n".join(texts)).encode())


@FEW
@given(
    rows=st.permutations(ROWS * 2),
    ending=st.sampled_from([".jsonl", ".json"]),
    preference=st.sampled_from(["chosen", "rejected", "both"]),
    paths=st.sampled_from(["best", "top", "all"]),
)
def test_rows_of_all_formats_mixed_are_all_accounted_for(
    rows: list[object], ending: str, preference: str, paths: str
) -> None:
    content = json.dumps(rows) if ending == ".json" else "".join(json.dumps(row) + "\n" for row in rows)
    manifest = normalized(ending, content.encode(), Choices(preference=preference, paths=paths))
    assert manifest is not None
    assert manifest.rows == len(rows)
