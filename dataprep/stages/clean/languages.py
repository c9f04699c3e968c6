"""The language of a text, as py3langid tells it from the first thousand characters.

Only what is surely in another language than those wanted counts as such: numbers and near relatives do not.
"""

from collections.abc import Callable, Sequence

_CODES = """
am af ar as az be bg bn br bs ca cs cy da de el en eo es et eu fa fi fr ga gl gu ha he hi hr ht hu hy id is it ja jv ka
kk km kn ko ku ky la lb lo lt lv mg mk ml mn mr ms mt my ne nl nn no oc or pa pl ps pt qu ro ru rw se si sk sl so sq sr
sv sw ta te tg th tk tl tr tt ug uk ur uz vi wa xh yo zh zu
"""
CODES = frozenset(_CODES.split())  # ISO 639-1, those that the model knows
CHARACTERS = 1000
_SHORT = 200  # characters, below which letters are counted
_MIN_LETTER_BYTES = 20  # of letters as UTF-8; fewer are too short to tell
_SURE = 0.05  # the wanted languages' share of the likelihood, below which they are out of question
_RELATIVES = {"zh": ("yue", "wuu"), "en": ("pcm",), "no": ("nn",), "nn": ("no",), "ms": ("id",), "id": ("ms",)}
_RELATIVES |= {"sr": ("hr", "bs"), "hr": ("sr", "bs"), "bs": ("sr", "hr")}
_NO_LANGUAGE = "zxx"


def other_language(wanted: Sequence[str]) -> Callable[[str], str | None]:
    """Give a function from a text to its language where that is surely none of those wanted; loads the model.

    For what is or may be in a wanted language it gives None; for a text too short to tell, "".
    """
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    accepted = {_NO_LANGUAGE, *wanted, *(code for name in wanted for code in _RELATIVES.get(name, ()))}

    def found(text: str) -> str | None:
        sample = text[:CHARACTERS]
        if len(sample) < _SHORT and len("".join(filter(str.isalpha, sample)).encode()) < _MIN_LETTER_BYTES:
            return ""
        language, _ = identifier.classify(sample)
        if language in accepted or sum(share for code, share in identifier.rank(sample) if code in accepted) > _SURE:
            return None
        return str(language)

    return found
