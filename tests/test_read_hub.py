"""Reading datasets of the hub: `datasets` downloads them from a server here that speaks as much of its protocol."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha1
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMMIT = "0" * 39 + "1"
ONE = b"""---
configs:
- config_name: default
  data_files:
  - {split: train, path: a.jsonl}
  - {split: test, path: b.jsonl}
---
"""
TWO = b"""---
configs:
- {config_name: en, data_files: a.jsonl}
- {config_name: zh, data_files: b.jsonl}
---
"""
LINES = {"a.jsonl": b'{"text": "one"}\n{"text": "two"}\n', "b.jsonl": b'{"text": "three"}\n'}
REPOS = {"owner/chats": {"README.md": ONE, **LINES}, "owner/langs": {"README.md": TWO, **LINES}}

READ = """
import sys, time
from hashlib import sha256
from pathlib import Path
from dataprep.stages.read.cut import cut
from dataprep.stages.read.inputs import find_files
from dataprep.stages.read.rows import read_rows
from schemas.errors import InputError
begun = time.monotonic()
try:
    for file in find_files([sys.argv[1]], leave_out=Path("cache")):
        rows = [row[:2] for segment in cut(file, sha256()) for row in read_rows(segment)]
        print(file.name, file.source, rows)
except InputError as error:
    print(error)
assert time.monotonic() - begun < 30
"""


class Hub(BaseHTTPRequestHandler):
    """What the hub answers for REPOS, owner/gated and owner/busy; 401 for any other, as for private ones."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def answer(self, code: int, data: bytes = b"", **headers: str) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def do_GET(self) -> None:
        sent = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        _, first, *rest = self.path.partition("?")[0].split("/")
        kind, name = (rest[3:], "/".join(rest[1:3])) if first == "api" else (rest[2:], "/".join(rest[:2]))
        if name == "owner/gated":
            return self.answer(403, b"{}", X_Error_Code="GatedRepo", X_Error_Message="Access is restricted.")
        if name == "owner/busy":
            return self.answer(503, b"{}")
        if name not in REPOS:
            return self.answer(401, b'{"error": "Repository not found"}', X_Error_Code="RepoNotFound")
        files = REPOS[name]
        if first == "api" and kind[:1] in ([], ["revision"]):
            return self.answer_json({"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in files]})
        if first == "api":  # tree or paths-info
            listed = [file for file in files if kind[0] == "tree" or file.encode() in sent]
            return self.answer_json(
                [{"type": "file", "path": file, "size": len(files[file]), "oid": _etag(files[file])} for file in listed]
            )
        data = files.get("/".join(kind[2:]))
        if data is None:
            return self.answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=COMMIT)
        return self.answer(200, data, ETag=f'"{_etag(data)}"', X_Repo_Commit=COMMIT)

    def answer_json(self, value: object) -> None:
        self.answer(200, json.dumps(value).encode(), Content_Type="application/json")

    do_HEAD = do_POST = do_GET


def _etag(data: bytes) -> str:
    return sha1(data).hexdigest()


@pytest.fixture
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def read(given: str, home: Path, endpoint: str, **more: str) -> str:
    """Read an input in a process of its own, whose cache is `home`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = {**kept, "HF_HOME": str(home), "HF_ENDPOINT": endpoint, "PYTHONPATH": str(ROOT), **more}
    command = [sys.executable, "-c", READ, given]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_all_splits_of_a_dataset_are_read_and_later_without_the_hub(tmp_path: Path, hub: str) -> None:
    train = "hf://owner/chats/train chats [(1, {'text': 'one'}), (2, {'text': 'two'})]\n"
    test = "hf://owner/chats/test chats [(1, {'text': 'three'})]\n"
    assert read("hf://owner/chats", tmp_path, hub) == train + test
    nobody = "http://127.0.0.1:9"
    assert read("hf://owner/chats@test", tmp_path, nobody) == test
    assert read("talk=hf://owner/chats@train", tmp_path, nobody, HF_HUB_OFFLINE="1") == train.replace(
        " chats ", " talk "
    )
    assert read("hf://owner/chats@dev", tmp_path, nobody) == (
        "hf://owner/chats@dev: the dataset has no split 'dev'; choose one of train, test\n"
    )


def test_a_dataset_of_several_configs_asks_for_one(tmp_path: Path, hub: str) -> None:
    assert read("hf://owner/langs", tmp_path, hub) == (
        "hf://owner/langs: name one of its configs, as in hf://owner/name/config: en, zh\n"
    )
    assert read("hf://owner/langs/de", tmp_path, hub) == (
        "hf://owner/langs/de: name one of its configs, as in hf://owner/name/config: en, zh\n"
    )
    assert read("hf://owner/langs/zh@train", tmp_path, hub) == (
        "hf://owner/langs/zh/train langs [(1, {'text': 'three'})]\n"
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("hf://owner/none", "the hub has no such dataset, or it is private; check the name, or run: hf auth login"),
        ("hf://owner/gated", "access is given on the dataset's page; ask for it there, then run: hf auth login"),
        ("hf://owner", "not a dataset; write hf://owner/name, hf://owner/name/config or hf://owner/name@split"),
    ],
)
def test_a_dataset_that_cannot_be_had_says_what_to_do(tmp_path: Path, hub: str, given: str, message: str) -> None:
    assert read(given, tmp_path, hub) == f"{given}: {message}\n"


def test_without_an_answer_it_fails_in_seconds(tmp_path: Path, hub: str) -> None:
    for endpoint, given in (("http://127.0.0.1:9", "hf://owner/chats"), (hub, "hf://owner/busy")):
        said = read(given, tmp_path, endpoint)
        assert said.startswith(f"{given}: no answer from the hub (")
        assert said.endswith(
            "), and nothing downloaded before; check the network, or download the dataset where there is one and name "
            "its folder\n"
        )
        assert said.count("\n") == 1
