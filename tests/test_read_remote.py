"""Input by URL: from a web server, and from fsspec's own file systems."""

import gzip
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dataprep.normalize.run import normalize_corpus
from dataprep.stages.read.inputs import find_files
from schemas.errors import InputError

TWO = b'{"question": "Why is the sky blue?", "answer": "Air."}\n{"question": "And red?", "answer": "Dusk."}\n'


def parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"question": ["Who?", "When?"], "answer": ["Ann.", "At noon."]}), sink)
    return sink.getvalue().to_pybytes()


FILES = {
    "/two.jsonl": TWO,
    "/two.jsonl.gz": gzip.compress(TWO, mtime=0),
    "/two.parquet": parquet(),
    "/cut.jsonl": TWO,
    "/cut.jsonl.gz": gzip.compress(TWO, mtime=0),
    "/cut.parquet": parquet(),
    "/endless.jsonl": TWO,
    "/notes.doc": TWO,
}


class Web(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        content = FILES.get(path)
        self.send_response(200 if content else 404)
        if not path.startswith("/endless"):
            self.send_header("Content-Length", str(len(content or b"")))
        self.end_headers()
        self.wfile.write((content or b"")[: -20 if path.startswith("/cut") else None])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Web)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["two.jsonl", "two.jsonl.gz", "two.parquet", "two.jsonl?download=true"])
def test_a_file_on_a_web_server_is_read_as_the_same_on_disk_is(name, web, tmp_path):
    local = tmp_path / name.partition("?")[0]
    local.write_bytes(FILES[f"/{local.name}"])
    there = normalize_corpus([f"{web}/{name}"], tmp_path / "there", workers=1)
    here = normalize_corpus([str(local)], tmp_path / "here", workers=1)
    assert (there.rows, there.kept, there.sources) == (2, 2, {"two": 2})
    assert (there.inputs[0].path, there.inputs[0].sha256) == (f"{web}/{name}", here.inputs[0].sha256)


@pytest.mark.parametrize("name", ["cut.jsonl", "cut.jsonl.gz", "cut.parquet"])
def test_a_file_that_ends_in_the_middle_is_an_error_and_leaves_nothing(name, web, tmp_path):
    size = len(FILES[f"/{name}"])
    told = rf"/{name}: ended after {size - 20} of {size} bytes; run the command again, or download it first"
    with pytest.raises(InputError, match=told):
        normalize_corpus([f"{web}/{name}"], tmp_path / "cache", workers=1)
    assert not list(tmp_path.glob("cache/conversations/*"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nowhere.jsonl", "nowhere.jsonl: cannot be read: HTTP Error 404: Not Found; check the name"),
        ("endless.jsonl", "endless.jsonl: the server doesn't tell its length, so a broken download"),
        ("notes.doc", "notes.doc: cannot tell the kind of file by its ending, or it is an archive"),
    ],
)
def test_what_a_web_server_cannot_give_is_told_in_one_line(name, message, web, tmp_path):
    with pytest.raises(InputError, match=message):
        find_files([f"{web}/{name}"], leave_out=tmp_path)


@pytest.fixture
def bucket() -> Iterator[str]:
    system = fsspec.filesystem("memory")
    for name, content in {"a/day.jsonl": TWO, "b/day.jsonl.gz": gzip.compress(TWO), "b/README.txt": b"Notes."}.items():
        system.pipe_file(f"/bucket/{name}", content)
    yield "memory://bucket"
    system.rm("/bucket", recursive=True)


def test_a_folder_and_a_glob_of_a_bucket_give_their_files(bucket, tmp_path):
    found = find_files([bucket], leave_out=tmp_path)
    assert [(file.name, file.source) for file in found] == [
        ("memory:///bucket/a/day.jsonl", "a/day"),
        ("memory:///bucket/b/day.jsonl.gz", "b/day"),
    ]
    assert [file.name for file in find_files([f"chats={bucket}/*/*.jsonl"], leave_out=tmp_path)] == [found[0].name]
    assert normalize_corpus([bucket, f"{bucket}/a/day.jsonl"], tmp_path / "cache", workers=1).rows == 4


def test_a_file_that_changes_between_listing_and_reading_is_refused(tmp_path):
    raw = tmp_path / "raw.jsonl"
    raw.write_bytes(TWO)
    (file,) = find_files([raw.as_uri()], leave_out=tmp_path)
    raw.write_bytes(TWO + TWO)
    assert file.remote is not None
    with pytest.raises(InputError, match=r"raw\.jsonl: was changed while it was read"), file.remote.opened():
        pass


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("s3://bucket/a.jsonl", r"s3://bucket/a.jsonl: Install s3fs to access S3, as in: pip install s3fs"),
        ("nosuch://bucket/a.jsonl", r"nosuch://bucket/a.jsonl: Protocol not known: nosuch; give http\(s\)://, s3://"),
        ("memory://nowhere/a.jsonl", r"memory://nowhere/a.jsonl: no such file or folder there; check the name"),
    ],
)
def test_what_cannot_be_reached_names_what_is_missing(given, message, tmp_path: Path):
    if given.startswith("s3") and find_spec("s3fs"):
        pytest.skip("s3fs is installed")
    with pytest.raises(InputError, match=message):
        find_files([given], leave_out=tmp_path)
