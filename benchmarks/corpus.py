"""Make a large chat corpus out of a small one: the same sentences in new company, so that no cache of repeats flatters.

Goes in: conversations.jsonl-like raw files that `dataprep normalize` reads. Comes out: a .jsonl of OpenAI messages.
Each message is made of sentences drawn from messages of the same role and language, with names and numbers changed.
"""

import argparse
import json
import random
import re
import tempfile
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq

from dataprep.normalize.run import normalize_corpus

_SENTENCES = re.compile(r"[^。！？.!?\n]+[。！？.!?\n]*")
_NUMBER = re.compile(r"\d+")


def make_corpus(inputs: list[str], out: Path, count: int, seed: int = 0) -> dict[str, float]:
    """Write `count` conversations of 2 to 8 exchanges to `out`; returns type/token statistics beside the source's."""
    chance = random.Random(seed)
    pools = sentence_pools(inputs)
    words: dict[str, int] = defaultdict(int)
    with out.open("w", encoding="utf-8") as file:
        for number in range(count):
            pool = pools[number % 2]
            messages = [
                {"role": role, "content": _message(chance, pool[role])}
                for _ in range(chance.randint(2, 8))
                for role in ("user", "assistant")
            ]
            file.write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
            for message in messages if number < 2_000 else ():
                for word in _words(message["content"]):
                    words[word] += 1
    source: dict[str, int] = defaultdict(int)
    for pool in pools:
        for sentences in pool.values():
            for sentence in sentences:
                for word in _words(sentence):
                    source[word] += 1
    return {
        "types per token": len(words) / max(1, sum(words.values())),
        "types per token of the source": len(source) / max(1, sum(source.values())),
        "megabytes": out.stat().st_size / 1e6,
    }


def _words(text: str) -> list[str]:
    return re.findall(r"[a-zA-Z]+|[\u4e00-\u9fff]{1,2}|\d+", text)


def sentence_pools(inputs: list[str]) -> list[dict[str, list[str]]]:
    """Sentences by role, of conversations mostly Chinese and of the others."""
    with tempfile.TemporaryDirectory() as folder:
        manifest = normalize_corpus(inputs, Path(folder), workers=1)
        tables = [pq.read_table(Path(folder) / "conversations" / part.file) for part in manifest.parts]
    pools: list[dict[str, list[str]]] = [{"user": [], "assistant": []} for _ in range(2)]
    for table in tables:
        for messages in table.column("messages").to_pylist():
            for message in messages:
                if message["role"] in pools[0] and message["content"] and not message["tool_calls"]:
                    chinese = any("\u4e00" <= char <= "\u9fff" for char in message["content"][:200])
                    pools[int(not chinese)][message["role"]].extend(_SENTENCES.findall(message["content"]))
    return pools


def _message(chance: random.Random, sentences: list[str]) -> str:
    length = min(12, max(1, round(chance.lognormvariate(1.0, 0.7))))
    text = "".join(chance.choice(sentences) for _ in range(length))
    return _NUMBER.sub(lambda _: str(chance.randrange(10 ** chance.randint(1, 4))), text).strip() or "OK."


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("inputs", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=20_000)
    arguments = parser.parse_args()
    print(make_corpus(arguments.inputs, arguments.out, arguments.count))
