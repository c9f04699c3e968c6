"""How much of an answer repeats itself, as a model does that fell into a loop.

The measure is one of Gopher's (Rae et al. 2021, arXiv:2112.11446, table A1): the share of a text's characters that
stand in duplicate 10-grams, each character counted once. Gopher turns web pages away above 0.10; answers hold tables,
lists and verses, so that 0.5 suits them. Grams are of words; of characters where there are no spaces, as in Chinese.
"""

from dataprep.stages.clean.prose import prose_pieces

GRAM = 10
_LONGEST_WORD = 12  # characters a word on average, above which a text is taken to have no spaces between words


def repeated_share(text: str) -> float:
    """Give the share, from 0 to 1, of a text's characters (but spaces and code) in 10-grams that stood before."""
    tokens = " ".join(prose_pieces(text)).split()
    length = sum(map(len, tokens))
    if length > _LONGEST_WORD * len(tokens):
        tokens = list("".join(tokens))
    grams = list(zip(*(tokens[start:] for start in range(GRAM)), strict=False))
    if len(set(grams)) == len(grams):
        return 0.0
    before = set()
    repeated = covered = 0  # characters; tokens up to here are counted
    for start, gram in enumerate(grams):
        if gram in before:
            repeated += sum(map(len, tokens[max(covered, start) : start + GRAM]))
            covered = start + GRAM
        before.add(gram)
    return repeated / length
