"""A million conversations from raw rows to shards, and what a second run and another packing of them cost.

    python benchmarks/million.py --data FOLDER_OF_RAW_FILES --tokenizer QWEN3_FOLDER [--counts 180000 500000 1000000]

Runs `dataprep normalize` and `dataprep tokenize` on so many rows, with two processes; then tokenize again (nothing to
do), and with another --seed and --seq-len (nothing to tokenise): 180,000 rows are about 100 million tokens. Caches are
emptied before but for the tokenizer, whose proof is made once, before any timing. The corpus (large_corpus.py) is made
once and stays in --work. CPU seconds and the sum of private memory (USS) are of the process tree.
"""

import argparse
import json
import os
import shutil
import sys
from itertools import islice
from pathlib import Path

from large_corpus import make_large_corpus
from measure import measured
from prep import SOURCES

_WORKERS = ["--workers", "2"]


def first_rows(corpus: Path, count: int) -> Path:
    """A file with the first `count` rows of the corpus."""
    path = corpus.with_name(f"rows-{count}.jsonl")
    if not path.is_file():
        with corpus.open("rb") as rows, path.with_suffix(".tmp").open("wb") as out:
            out.writelines(islice(rows, count))
        path.with_suffix(".tmp").replace(path)
    return path


def show(what: str, cost: dict[str, float], note: str = "") -> None:
    load = os.getloadavg()[0]
    print(
        f"{what:<44}{cost['wall_s']:>8.1f}{cost['cpu_s']:>8.1f}{cost['peak_bytes'] / 1e6:>9.0f}{load:>7.1f}  {note}",
        flush=True,
    )


def measure_rows(rows: Path, count: int, cache: Path, tokenizer: str) -> None:
    """Print what each command costs on a file of `count` rows."""
    for folder in ("conversations", "tokens", "shards"):
        shutil.rmtree(cache / folder, ignore_errors=True)
    dataprep = [sys.executable, "-m", "dataprep.cli"]
    tokenize = [*dataprep, "tokenize", str(cache), "--model", tokenizer, *_WORKERS]
    megabytes = rows.stat().st_size / 1e6
    first = measured([*dataprep, "normalize", str(rows), "--out", str(cache), *_WORKERS], {})
    show(f"{count:,} rows: normalize", first, f"{megabytes / first['cpu_s']:.1f} MB of JSONL per CPU s")
    second = measured(tokenize, {})
    show(f"{count:,} rows: tokenize", second, f"{megabytes / second['cpu_s']:.1f} MB of JSONL per CPU s")
    both = {key: first[key] + second[key] for key in ("wall_s", "cpu_s")}
    show("  both", {**both, "peak_bytes": max(first["peak_bytes"], second["peak_bytes"])}, _shards(cache))
    show("  tokenize again, nothing to do", measured(tokenize, {}))
    show("  --seed 1", measured([*tokenize, "--seed", "1"], {}), _shards(cache))
    show("  --seq-len 8192 --seed 2", measured([*tokenize, "--seed", "2", "--seq-len", "8192"], {}), _shards(cache))


def _shards(cache: Path) -> str:
    manifest = json.loads((cache / "shards" / "manifest.json").read_text())
    records = [record for records in manifest["splits"].values() for record in records]
    tokens, packs = sum(record["tokens"] for record in records), sum(record["packs"] for record in records)
    fill = tokens / (packs * manifest["options"]["seq_len"])
    size = sum(record["bytes"] for record in records) / tokens
    return f"{tokens:,} tokens, {fill:.2%} full, {size:.2f} bytes a token"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the raw files named in prep.py")
    parser.add_argument("--tokenizer", required=True, help="folder of Qwen3's tokenizer")
    parser.add_argument("--counts", type=int, nargs="+", default=[180_000, 500_000, 1_000_000])
    parser.add_argument("--work", type=Path, default=Path("/tmp/sftpack-million"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    most = max(arguments.counts)
    corpus, about = (arguments.work / f"rows-{most}.{end}" for end in ("jsonl", "json"))
    if not about.is_file():
        made = make_large_corpus([str(arguments.data / name) for name in SOURCES], corpus, most)
        about.write_text(json.dumps(made))
    print(f"{most:,} conversations: {about.read_text()}")
    tiny = first_rows(corpus, 10)
    print(f"{'':<44}{'wall s':>8}{'CPU s':>8}{'peak MB':>9}{'load':>7}")
    for count in arguments.counts:
        cache = arguments.work / f"cache-{count}"
        shutil.rmtree(cache, ignore_errors=True)
        for command in (["normalize", str(tiny), "--out"], ["tokenize", "--model", arguments.tokenizer]):
            measured([sys.executable, "-m", "dataprep.cli", *command, str(cache)], {})
        measure_rows(first_rows(corpus, count), count, cache, arguments.tokenizer)


if __name__ == "__main__":
    main()
