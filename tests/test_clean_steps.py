"""The names and values of steps: how --clean is read, and the table that shows them."""

import pytest

from dataprep.stages.clean.steps import STEPS, settled_steps, steps_text
from dataprep.stages.normalize.reasons import FIXES
from schemas.errors import InputError


def test_by_default_no_text_is_changed() -> None:
    settled = settled_steps([])
    assert list(settled) == list(STEPS)
    assert {name for name, value in settled.items() if value in ("fix", "drop")} == {
        "empty-turns",
        "last-role",
        "duplicates",
    }


@pytest.mark.parametrize(
    ("given", "step", "value"),
    [
        ("html", "html", "fix"),
        ("html=drop", "html", "drop"),
        ("same-role", "same-role", "merge"),
        ("refusals", "refusals", "drop"),
        ("placeholders", "placeholders", "drop"),
        ("min-turns=04", "min-turns", "4"),
        ("repetition", "repetition", "0.5"),
        ("near-duplicates", "near-duplicates", "0.8"),
        ("near-duplicates=.70", "near-duplicates", "0.7"),
        ("languages=zh, EN", "languages", "en,zh"),
        ("last-role=off", "last-role", "off"),
    ],
)
def test_a_step_is_set_by_its_name_and_value(given: str, step: str, value: str) -> None:
    assert settled_steps([given]) == settled_steps([]) | {step: value}


def test_the_last_word_on_a_step_counts() -> None:
    assert settled_steps(["html=drop", "html=off"])["html"] == "off"


ALL = ", ".join(STEPS)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("htm", f"--clean htm: no such step; use one of {ALL}"),
        ("html=mend", "--clean html=mend: no such value; use off, count, fix, drop"),
        ("min-turns", "--clean min-turns: needs a value; give off or a whole number of 1 or more, such as 2"),
        ("min-turns=0", "--clean min-turns=0: no such value; use off or a whole number of 1 or more, such as 2"),
        ("repetition=2", "--clean repetition=2: no such value; use off or a number above 0 and up to 1, such as 0.8"),
        (
            "repetition=nan",
            "--clean repetition=nan: no such value; use off or a number above 0 and up to 1, such as 0.8",
        ),
        (
            "languages=xx",
            "--clean languages=xx: no such value; use off or language codes with commas between, such as zh,en",
        ),
        (
            "languages=",
            "--clean languages=: no such value; use off or language codes with commas between, such as zh,en",
        ),
    ],
)
def test_an_unknown_step_or_value_names_those_there_are(given: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        settled_steps([given])
    assert str(caught.value) == message


def test_the_table_shows_every_step_within_100_columns() -> None:
    lines = steps_text().splitlines()
    assert max(map(len, lines)) <= 100
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == ["STEP", *STEPS, "--clean"]
    assert lines[-1] == "--clean STEP alone means its fix, merge or drop; or repetition=0.5, near-duplicates=0.8"
    assert "html               count    off|count|fix|drop    leftover entities" in steps_text()


def test_every_reason_of_a_step_has_its_fix() -> None:
    droppers = {name for name, step in STEPS.items() if "drop" in step.words} - {"empty-turns", "duplicates"}
    assert droppers <= set(FIXES)
