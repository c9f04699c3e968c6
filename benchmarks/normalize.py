"""`dataprep normalize` on clean ShareGPT rows, by default 5 GB of them: MB a second and core, peak memory.

    python benchmarks/normalize.py --data FOLDER_OF_RAW_FILES [--gigabytes 5] [--rounds 1]

The rows are those of corpus.py as ShareGPT, 20,000 of them again and again, each with its own number in its first
turn so that no two are equal. Peak memory is the sum of private memory (USS) over the process tree.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path

from corpus import make_corpus
from measure import measured
from prep import SOURCES

_NAMES = {"user": "human", "assistant": "gpt"}


def make_sharegpt(plain: Path, out: Path, size: int) -> int:
    """Write ShareGPT rows of about `size` bytes made of the OpenAI rows in `plain`; returns how many."""
    lines = []
    for line in plain.read_text(encoding="utf-8").splitlines():
        turns = [{"from": _NAMES[turn["role"]], "value": turn["content"]} for turn in json.loads(line)["messages"]]
        lines.append(json.dumps({"id": "@", "conversations": turns}, ensure_ascii=False).encode())
    head = b'{"id": "@", "conversations": [{"from": "human", "value": "'
    ends = [line.removeprefix(head) for line in lines]
    rows = written = 0
    with out.open("wb") as file:
        while written < size:
            for end in ends:
                written += file.write(b"%s(%d) %s\n" % (head, rows, end))
                rows += 1
                if written >= size:
                    break
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with the raw files named in prep.py")
    parser.add_argument("--gigabytes", type=float, default=5.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--work", type=Path, default=Path("/tmp/sftpack-normalize"))
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    plain, corpus = arguments.work / "plain.jsonl", arguments.work / "sharegpt.jsonl"
    make_corpus([str(arguments.data / name) for name in SOURCES], plain, 20_000)
    rows = make_sharegpt(plain, corpus, int(arguments.gigabytes * 1e9))
    size = corpus.stat().st_size
    print(f"{rows:,} rows, {size / 1e9:.2f} GB")
    tool = str(Path(sys.executable).parent / "dataprep")
    print(f"{'processes':>9}{'wall s':>9}{'CPU s':>9}{'MB/CPU s':>10}{'MB/wall s':>11}{'peak MB':>9}{'output MB':>11}")
    for workers in [1, 2] * arguments.rounds:
        shutil.rmtree(arguments.work / "cache", ignore_errors=True)
        command = [tool, "normalize", str(corpus), "--out", str(arguments.work / "cache"), "--workers", str(workers)]
        cost = measured(command, {})
        manifest = json.loads((arguments.work / "cache" / "conversations" / "manifest.json").read_text())
        assert manifest["kept"] == rows, manifest["turned_away"]
        output = sum(part["bytes"] for part in manifest["parts"])
        print(
            f"{workers:>9}{cost['wall_s']:>9.1f}{cost['cpu_s']:>9.1f}{size / 1e6 / cost['cpu_s']:>10.1f}"
            f"{size / 1e6 / cost['wall_s']:>11.1f}{cost['peak_bytes'] / 1e6:>9.0f}{output / 1e6:>11.0f}"
        )


if __name__ == "__main__":
    main()
