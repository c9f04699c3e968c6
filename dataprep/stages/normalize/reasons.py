"""Why a row is turned away: every reason code, with how to mend such a row."""

FIXES = {
    "bad-encoding": "name its encoding with --encoding, or save it as UTF-8: iconv -f GB18030 -t UTF-8 FILE > NEW",
    "broken-json": "write one whole JSON value a line in .jsonl, one array in .json",
    "too-deep": "leave out the nested value or write it as a string",
    "too-large": "split the row; a row holds at most 1 GiB",
    "unreadable-rows": "write or download the file anew; part of it is damaged",
    "not-an-object": "make each row a JSON object or a list of messages",
    "unknown-format": "rename its keys to those of a known format; `dataprep formats` shows a row of each",
    "format-mismatch": "leave --format out, so that each row's own format is found, or name another",
    "no-messages": "give the row at least one message",
    "bad-message": "make each message an object with a role and a text",
    "unknown-role": "map it with --role NAME=ROLE",
    "no-content": "give the message a text, or leave it out",
    "non-text-content": "give the text as a string; images, audio and other parts are not supported",
    "no-assistant-turn": "add an answer to train on, or leave the row out",
    "empty-assistant-turn": "write the missing answer, or leave the turn out",
    "truncated-reasoning": "finish the reasoning with its closing tag and an answer, or leave the row out",
    "bad-tool-call": 'write each call as {"name": …, "arguments": {…}}',
    "bad-tools": "write tools as a JSON array of objects",
    "bad-history": "write history as a list of [question, answer] pairs",
    "uneven-lists": "give each input its output; only the last may lack one",
    "bad-marks": r"begin the text with \n\nHuman: and each turn with \n\nHuman: or \n\nAssistant:",
    "undesired-answer": "take it with --preference rejected or --preference both, or leave the row out",
    "no-rejected-answer": "take it with --preference chosen or --preference both, or leave the row out",
    "missing-parent": "put all messages of a tree into one file, the first with no parent",
    "deleted-message": "leave the row out, or take out the mark that says it was deleted or failed review",
    "no-question": "write each answer beside its question, in one row",
    "bad-train-flag": "use true, false, 0 or 1",
    "near-duplicate": "not needed: the first is kept; a higher --clean near-duplicates=RATIO keeps more",
    "duplicate": "not needed: the first copy is kept; --clean duplicates=off keeps all",
    "contaminated": "not needed: its text is held out; --held-out without that file keeps it",
    "personal-data": "take out what is personal, or have it replaced with --pii redact",
    "html": "take the markup out; --clean html does",
    "replacement-chars": "write what the lost characters were; --clean replacement-chars takes the marks out",
    "control-chars": "take the control characters out; --clean control-chars does",
    "control-tokens": "take the template's tokens out; --clean control-tokens does",
    "spaced-chinese": "take the spaces between the characters out; --clean spaced-chinese does",
    "placeholders": "fill them in, or keep such rows with --clean placeholders=count",
    "first-role": "begin with the user's turn; --clean first-role cuts what is before it",
    "last-role": "end with an answer; --clean last-role cuts what is after the last",
    "system-role": "put the system message first, or keep such rows with --clean system-role=count",
    "same-role": "let user and assistant take turns; --clean same-role joins two turns of one",
    "refusals": "write a real answer, or keep such rows with --clean refusals=count",
    "too-few-turns": "not needed: --clean min-turns=N sets the limit",
    "too-many-turns": "split the conversation; --clean max-turns=N sets the limit",
    "too-few-chars": "not needed: --clean min-chars=N sets the limit",
    "too-many-chars": "split the conversation; --clean max-chars=N sets the limit",
    "short-answer": "not needed: --clean min-answer-chars=N sets the limit",
    "repetitive": "write the answer anew; --clean repetition=RATIO sets the limit",
    "other-language": "not needed: --clean languages=CODES names those to keep",
    "lone-surrogate": "take out the half of a \\uD800-\\uDFFF pair; it is no character",
    "nul-character": "take out the NUL character; --clean control-chars does",
}


class TurnedAway(Exception):
    """A row that can't become a conversation: a reason code out of FIXES, what was found, and how to mend it."""

    def __init__(self, reason: str, detail: str, fix: str | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail
        self.fix = fix or FIXES[reason]


def shown(value: object) -> str:
    """Show a value of a row in a detail: on one line, in at most 60 characters."""
    if not isinstance(value, str | int | float):
        return kind_of(value)
    text = repr(value[:80]) if isinstance(value, str) else str(value)[:80]
    return text if len(text) <= 60 else text[:59] + "…"


def kind_of(value: object) -> str:
    """Name a value's kind as JSON calls it."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", type(None): "null"}
    numbers = {int: "a number", float: "a number"}
    return (names | numbers).get(type(value), f"a {type(value).__name__}")
