"""Rows of one question and several answers that were compared: into the same row with `chosen` and `rejected`.

The best of all is chosen, the worst rejected; on a tie the first is chosen. Where nobody says which is better, the row
is none of these.
"""

from typing import Any

from dataprep.stages.normalize.formats.cells import as_list, parsed_cell
from dataprep.stages.normalize.reasons import TurnedAway

# (chosen, rejected) by other names.
NAMED_SIDES = (
    ("response_j", "response_k"),
    ("chosen_response", "rejected_response"),
    ("response_chosen", "response_rejected"),
    ("chosen_answer", "rejected_answer"),
    ("answer_chosen", "answer_rejected"),
    ("preferred_output", "non_preferred_output"),
    ("pos_resp", "neg_resp"),
    ("preferred", "dispreferred"),
    ("preferred", "rejected"),
    ("preferred_response", "rejected_response"),
    ("preferred_response", "dispreferred_response"),
    ("positive_response", "negative_response"),
    ("better_response", "worse_response"),
    ("winning_response", "losing_response"),
)
# Two that another column compares.
COMPARED = (
    ("response_0", "response_1"),
    ("response_1", "response_2"),
    ("response1", "response2"),
    ("response_a", "response_b"),
    ("answer_0", "answer_1"),
    ("answer_a", "answer_b"),
    ("output_1", "output_2"),
    ("human_ref_A", "human_ref_B"),
    ("conversation_a", "conversation_b"),
)
# Lists of any number, whose items or a list beside them say how good each is.
LISTED = ("completions", "responses", "generations", "answers", "outputs", "candidates")
RATINGS = ("overall_score", "score", "rating", "reward", "pm_score")
RATING_LISTS = ("scores", "ratings", "rewards")
WINNERS = (
    *("better_response_id", "safer_response_id", "winner", "winner_model_a", "winner_model_b", "winner_tie"),
    *("preference", "preference_strength", "overall_preference", "labels", "score_0", "score_1", "rank", "ranks"),
)

_STRENGTHS = ("preference_strength", "overall_preference")
_ITEM_TEXTS = ("response", "answer", "answer_text", "text", "content", "completion", "output", "generation")


def compared(row: dict[str, Any]) -> dict[str, Any] | None:
    """Give a row with its best answer as `chosen` and its worst as `rejected`; None where it compares no answers.

    Turns away a row whose answers are both said to be bad.
    """
    for better, worse in NAMED_SIDES:
        if row.get(better) is not None and worse in row:
            return _sided(row, (better, worse), row[better], row[worse])
    for keys in COMPARED:
        if all(row.get(key) is not None for key in keys):
            winner = _winner(row, keys)
            if winner is not None:
                return _sided(row, keys, row[keys[winner]], row[keys[1 - winner]])
    for key in LISTED:
        found = _best_and_worst(row, key)
        if found is not None:
            return _sided(row, (key,), *found)
    return None


def _sided(row: dict[str, Any], dropped: tuple[str, ...], chosen: object, rejected: object) -> dict[str, Any]:
    rest = {key: value for key, value in row.items() if key not in dropped}
    if type(rest.get("history")) is str and rest.get("question") is None:  # a post, as what is asked
        rest["question"] = rest.pop("history")
    question = rest.get("question")
    if isinstance(question, dict) and type(question.get("full_text")) is str:
        rest["question"] = question["full_text"]
    asked, answers = parsed_cell(rest.get("prompt")), (parsed_cell(chosen), parsed_cell(rejected))
    if _are_texts(asked) and all(_are_texts(answer) and len(answer) == len(asked) for answer in answers):
        del rest["prompt"]
        chosen, rejected = (_dialogue(asked, answer) for answer in answers)
    return rest | {"chosen": chosen, "rejected": rejected}


def _winner(row: dict[str, Any], keys: tuple[str, str]) -> int | None:
    """Give 0 where the first answer is better or as good, 1 where the second is, None where nobody says."""
    for key in ("better_response_id", "safer_response_id"):
        if row.get(key) in (0, 1):
            return int(row[key])
    strength = next((row[key] for key in _STRENGTHS if _is_number(row.get(key))), None)
    if strength is not None:  # negative: the first is better
        return int(strength > 0)
    if keys[0] == "output_1" and row.get("preference") in (1, 2):
        return int(row["preference"]) - 1
    if keys[0] == "human_ref_A" and row.get("labels") in (0, 1):  # 1: the first is better
        return 1 - int(row["labels"])
    if any(row.get(key) == 1 for key in ("winner_model_a", "winner_model_b", "winner_tie")):
        return int(row.get("winner_model_b") == 1)
    if keys[0] == "answer_0" and _is_number(row.get("score_0")) and _is_number(row.get("score_1")):
        return int(row["score_1"] > row["score_0"])
    return _named_winner(row.get("winner"))


def _named_winner(winner: object) -> int | None:
    if type(winner) is not str:
        return None
    name = winner.lower().replace(" ", "").replace("_", "")
    if "bothbad" in name:
        raise TurnedAway("undesired-answer", "the row's winner says that both answers are bad")
    if name in ("modela", "responsea", "a", "tie"):
        return 0
    return 1 if name in ("modelb", "responseb", "b") else None


def _best_and_worst(row: dict[str, Any], key: str) -> tuple[object, object] | None:
    """Give the best and the worst of a list of answers; the worst is null where all are as good."""
    items = as_list(row.get(key))
    if not isinstance(items, list) or len(items) < 2:
        return None
    ratings = next((row[name] for name in RATING_LISTS if isinstance(row.get(name), list)), None)
    if ratings is None or len(ratings) != len(items):
        ratings = [_rating(item) for item in items]
    ranks = next((row[name] for name in ("ranks", "rank") if isinstance(row.get(name), list)), None)
    if ranks is not None and len(ranks) == len(items) and all(map(_is_number, ranks)):
        ratings = [-rank for rank in ranks]  # 1 is the best
    chosen = row.get("better_response_id")
    if type(chosen) is int and 0 <= chosen < len(items):
        ratings = [int(place == chosen) for place in range(len(items))]
    texts = [item_text(item) for item in items]
    if not all(_is_number(rating) for rating in ratings) or not all(text is not None for text in texts):
        return None
    best, worst = max(ratings), min(ratings)
    return texts[ratings.index(best)], texts[ratings.index(worst)] if worst < best else None


def _rating(item: object) -> object:
    """Give how good an item is said to be: a rating, or a rank of which 1 is the best."""
    if not isinstance(item, dict):
        return None
    if item.get("selected") is True:
        return float("inf")
    if _is_number(item.get("rank")):
        return -item["rank"]
    return next((item[name] for name in RATINGS if _is_number(item.get(name))), None)


def item_text(item: object) -> str | None:
    """Give the text of one answer out of a list of them."""
    if isinstance(item, dict):
        return next((item[name] for name in _ITEM_TEXTS if type(item.get(name)) is str), None)
    return item if type(item) is str else None


def _dialogue(questions: list[str], answers: list[str]) -> list[dict[str, str]]:
    turns = []
    for question, answer in zip(questions, answers, strict=True):
        turns += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return turns


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(type(text) is str for text in value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value
