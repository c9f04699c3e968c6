"""Rules by source: which options a conversation is tokenised with, and the keys of the chunks that this decides."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from dataprep.core.chunks import Chunk
from dataprep.core.columns import canonical_json
from schemas.manifest import TargetRules, TokenOptions


def options_of(options: TokenOptions, rules: TargetRules | None) -> TokenOptions:
    """The options for a source that has these rules; None: the usual ones."""
    return options if rules is None else replace(options, **asdict(rules))


def targets_text(given: TokenOptions | TargetRules) -> str:
    """What is trained on, in the words of the command line: `last, turns exact`."""
    return given.train_on + "".join(
        f", {name} {value}"
        for name, value, usual in (("turns", given.turns, "whole"), ("thinking", given.thinking, "keep"))
        if value != usual
    )


def keyed_chunks(
    chunks: Sequence[Chunk], names: Sequence[str], sources: NDArray[np.int32], targets: dict[str, TargetRules]
) -> list[Chunk]:
    """Chunks under the keys that rules by source give them: others than before only where such a source has rows.

    `sources` are those of the conversations, (C,), as indices into `names`.
    Which rows have which rules decides a key, and not what their sources are called (schemas/example.md).
    """
    named = {name: canonical_json(asdict(rules)) for name, rules in targets.items()}
    kinds = sorted(set(named.values()))
    numbers = np.array([kinds.index(named[name]) + 1 if name in named else 0 for name in names], dtype=np.int32)
    if not numbers.any():
        return list(chunks)
    of_rows = numbers[sources]  # 0: the usual options
    keyed = []
    for chunk in chunks:
        own = of_rows[chunk.start : chunk.stop]
        if own.any():
            digest = blake2b(chunk.key.encode(), digest_size=16)
            for number in np.unique(own[own > 0]).tolist():
                digest.update(kinds[number - 1])
                digest.update(np.flatnonzero(own == number).astype("<i4").tobytes())
            keyed.append(replace(chunk, key=digest.hexdigest()))
        else:
            keyed.append(chunk)
    return keyed
