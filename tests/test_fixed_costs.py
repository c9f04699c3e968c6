"""What a run costs whatever the size of its input: what is imported, read and loaded."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from corpus import many_dialogues, write_jsonl

from dataprep.normalize.run import normalize_corpus
from dataprep.tokenize.run import tokenize_corpus
from dataprep.tokenize.unchanged import none_written, note_checked
from schemas.manifest import PackOptions, read_conversations_manifest, read_shards_manifest

OPTIONS = PackOptions(seq_len=256, overflow="cut", val_fraction=0.1, seed=0)
LISTING = """
import sys
opened = []
sys.addaudithook(lambda event, given: opened.append(str(given[0])) if event == "open" else None)
from dataprep.cli import main
code = main(sys.argv[1:])
print("\\n".join(name for name in opened if name.endswith((".arrow", ".parquet"))), file=sys.stderr)
sys.exit(code)
"""


def opened_by_tokenize(cache: Path, model: Path) -> tuple[str, set[str]]:
    """What `dataprep tokenize` prints last but one, and the folders that hold the parts, chunks and shards it opens."""
    given = ["tokenize", str(cache), "--model", str(model), "--seq-len", "256", "--val-fraction", "0.1"]
    run = subprocess.run([sys.executable, "-c", LISTING, *given], capture_output=True, text=True, check=True)
    folders = {Path(name).relative_to(cache).parts[0] for name in run.stderr.split()}
    return run.stdout.splitlines()[-2], folders


def test_nothing_to_do_opens_no_part_chunk_or_shard_and_a_copy_is_checked_once(tmp_path, tiny_tokenizer_dir):
    raw = write_jsonl(tmp_path / "raw.jsonl", many_dialogues(300))
    normalize_corpus([str(raw)], tmp_path / "made", workers=1)
    tokenize_corpus(tmp_path / "made", str(tiny_tokenizer_dir), OPTIONS, workers=1)
    cache = Path(shutil.copytree(tmp_path / "made", tmp_path / "cache"))
    next(cache.glob("tokens/*/*.arrow")).touch()
    manifest = (cache / "shards" / "manifest.json").stat()
    last, folders = opened_by_tokenize(cache, tiny_tokenizer_dir)
    assert "up to date, nothing to do" in last
    assert {"conversations", "shards"} <= folders
    last, folders = opened_by_tokenize(cache, tiny_tokenizer_dir)
    assert "up to date, nothing to do" in last
    assert folders == set()
    assert (cache / "shards" / "manifest.json").stat().st_mtime_ns == manifest.st_mtime_ns


def test_a_file_of_another_size_or_none_is_made_again_though_its_time_is_old(tmp_path, tiny_tokenizer_dir):
    raw = write_jsonl(tmp_path / "raw.jsonl", many_dialogues(120))
    normalize_corpus([str(raw)], tmp_path / "cache", workers=1)
    built = tokenize_corpus(tmp_path / "cache", str(tiny_tokenizer_dir), OPTIONS, workers=1)
    source = read_conversations_manifest(tmp_path / "cache" / "conversations")
    shard = built.folder / built.manifest.splits["train"][0].file
    whole = shard.read_bytes()
    for spoil in (lambda: shard.unlink(), lambda: os.truncate(shard, 100)):
        spoil()
        note_checked(built.folder)
        assert not none_written(tmp_path / "cache", source, read_shards_manifest(built.folder))
        again = tokenize_corpus(tmp_path / "cache", str(tiny_tokenizer_dir), OPTIONS, workers=1)
        assert (again.tokenized, again.up_to_date) == (0, False)
        assert shard.read_bytes() == whole
    assert none_written(tmp_path / "cache", source, read_shards_manifest(built.folder))


def test_lists_become_arrays_without_pandas_and_tables_become_data_frames_still():
    code = (
        "import sys, pyarrow as pa\n"
        "from dataprep.core.arrays import spare_pandas\n"
        "spare_pandas()\n"
        "assert pa.array(['a', None], pa.string()).null_count == 1 and 'pandas' not in sys.modules\n"
        "assert pa.table({'a': [7]}).to_pandas()['a'].tolist() == [7]\n"
    )
    run = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
