"""What is shown and proven of chat templates: real ones out of the installed trl, and hostile ones written here."""

import tempfile
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import orjson
import pytest

from dataprep.cli import main
from dataprep.template.checks import all_checks
from dataprep.template.markers import template_markers
from dataprep.template.page import page_text
from dataprep.template.probes import PROBES
from dataprep.template.proof import FAILED, PROVEN, TURNED_AWAY, UNSUPPORTED, WRONG, Outcome, prove
from dataprep.template.show import template_text
from dataprep.template.signs import load_signs
from dataprep.template.subject import Subject, load_subject, load_template
from dataprep.template.table import Row, find_templates, try_templates
from schemas.errors import InputError

BY_NAME = {probe.name: probe for probe in PROBES}
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def trl(name: str) -> str:
    return (files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")


def tried(template: str, probe: str) -> Outcome:
    with tempfile.TemporaryDirectory() as scratch:
        return prove(load_template(template, None, {}, Path(scratch)), BY_NAME[probe])


def table_of(folder: Path, templates: dict[str, str], timeout_s: float = 60.0) -> dict[str, Row]:
    folder.mkdir()
    for name, template in templates.items():
        (folder / f"{name}.jinja").write_text(template, encoding="utf-8")
    rows = find_templates([folder])
    try_templates(rows, None, timeout_s)
    return {row.name: row for row in rows}


def test_markers_are_found_by_shape_in_literals_and_not_in_prose_or_code():
    template = (
        "{# <|comment|> #}{{ bos_token }}<|im_start|>{% if m == '[INST]' %}</s>{% endif %}<end_of_turn><｜Assistant｜>"
        "<|turn>x<turn|>[|endofturn|][gMASK]<sop><seed:eos><extra_id_1> <tool_call> <div> a<b [x] [A] {{ x[0] }}"
    )
    assert set(template_markers(template)) == {
        *("<|im_start|>", "</s>", "<end_of_turn>", "<｜Assistant｜>", "<|turn>", "<turn|>", "[|endofturn|]", "[gMASK]"),
        *("<sop>", "<seed:eos>", "<extra_id_1>", "[INST]"),
    }


def test_markers_that_a_template_joins_from_parts_become_tokens():
    template = "{% for m in messages %}{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}{% endfor %}"
    template += "{% if add_generation_prompt %}{{ '<|' + 'assistant' + '|>' }}{% endif %}"
    with tempfile.TemporaryDirectory() as scratch:
        subject = load_template(template, None, {}, Path(scratch))
    assert {"<|user|>", "<|assistant|>", "<|system|>", "<|end|>"} <= set(subject.bundle.control_tokens)


def test_a_proven_probe_shows_its_targets_and_that_inference_gives_what_stands_before():
    outcome = tried(CHATML, "multi-turn")
    assert (outcome.kind, outcome.notes, outcome.marks) == (PROVEN, [], "")
    assert [turn.text for turn in outcome.turns] == [
        "It reaches ninety metres.<|im_end|>",
        "Masons from the valley.<|im_end|>",
        "Around 1480.<|im_end|>",
    ]


def test_differences_from_inference_are_named():
    assert tried(trl("qwen3"), "plain").notes == ["inference gives it with enable_thinking=False"]
    assert "reasoning is left out" in tried(trl("qwen3"), "earlier reasoning").notes
    opened = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    assert tried(opened, "plain").notes == ["inference's prompt goes on with '<think>\\n'"]


def test_masks_of_generation_marks_are_compared():
    assert tried(trl("llama3_training"), "multi-turn").marks == "equal"
    assert tried(trl("qwen2_5_training"), "plain").marks == "also has '\\n'"
    no_end = CHATML.replace("{{ message.content }}", "{% generation %}{{ message.content }}{% endgeneration %}")
    assert tried(no_end, "plain").marks == "lacks '<|im_end|>'; also has 'How tall is the old tower?'"


def test_blanks_that_a_template_strips_are_named_where_an_end_is_added_too():
    outcome = tried(trl("glm4moe"), "blanks")
    assert (outcome.kind, outcome.notes[0]) == (PROVEN, "end added: <|user|>")
    assert "blanks at the ends of answers are stripped" in outcome.notes


def test_what_a_template_refuses_is_told_in_its_words():
    refused = "{{ raise_exception('Roles must alternate!') }}"
    assert tried(refused, "plain") == Outcome(kind=UNSUPPORTED, detail="Roles must alternate!")
    assert tried(trl("llama3"), "tools").detail.startswith("message-dropped")
    assert tried(trl("llama3"), "tools").kind == TURNED_AWAY


def test_targets_that_lack_a_messages_text_or_hold_anothers_are_wrong():
    with tempfile.TemporaryDirectory() as scratch:
        subject = load_template(CHATML, None, {}, Path(scratch))
        wrong = _with_mask(subject, lambda ids, mask: [False, *mask[1:-3], *[False] * 3])
        late = _with_mask(subject, lambda ids, mask: [False] + [True] * (len(mask) - 1))
        outcomes = [prove(wrong, BY_NAME["plain"]), prove(late, BY_NAME["plain"])]
    assert [outcome.kind for outcome in outcomes] == [WRONG, WRONG]
    assert "text of message 1 is in the targets of answer 2" in outcomes[1].detail


def _with_mask(subject: Subject, change, next_token: int = 0) -> Subject:
    """A subject whose examples have another mask, to see that a wrong one is noticed."""

    class Changed(Subject):
        def example(self, probe):
            example = Subject.example(self, probe)
            example["assistant_masks"] = change(example["input_ids"], example["assistant_masks"])
            example["turn_ends"][0] += next_token  # the first turn reaches so much further
            return example

    names = ("bundle", "template", "engine", "official", "place")
    return Changed(**{name: getattr(subject, name) for name in names})


def test_hostile_templates_become_cells_and_never_stop_the_table(tmp_path):
    rows = table_of(
        tmp_path / "hostile",
        {
            "good": CHATML,
            "unparsable": "{% for m in messages %}{{ m.content ",
            "unknown-filter": "{{ messages | shout }}",
            "include": "{% include 'other.jinja' %}",
            "missing": "{{ nothing.there.at_all }}",
            "recursion": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
            "odd": "{{ messages.0.content + 3 }}",
            "private": "{{ messages.__class__.__mro__ }}",
            "empty": "",
            "endless": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
            "{% endfor %}{% endfor %}{% endfor %}",
        },
        timeout_s=8.0,
    )
    assert all(set(row.outcomes) == set(BY_NAME) for row in rows.values())
    assert rows["good"].outcomes["plain"].kind == PROVEN
    assert rows["unparsable"].outcomes["plain"].kind == FAILED
    assert "can't be parsed" in rows["unparsable"].outcomes["plain"].detail
    assert rows["endless"].outcomes["plain"] == Outcome(kind=FAILED, detail="no answer in time")
    for name in ("missing", "odd"):
        assert rows[name].outcomes["plain"].kind == UNSUPPORTED
    assert not any(o.kind == PROVEN for name, row in rows.items() if name != "good" for o in row.outcomes.values())
    page = page_text(list(rows.values()), "Tokens: made.")
    assert "| good | ✓ | ✓ | ✓ |" in page and "## Failed" in page and "10 templates on 10 probes" in page


def test_tokenizers_folders_and_files_of_one_name_are_found(tmp_path, tiny_tokenizer_dir):
    import shutil

    shutil.copytree(tiny_tokenizer_dir, tmp_path / "models" / "tiny")
    (tmp_path / "models" / "config-only").mkdir()
    config = {"chat_template": CHATML, "eos_token": {"content": "<|im_end|>"}}
    (tmp_path / "models" / "config-only" / "tokenizer_config.json").write_bytes(orjson.dumps(config))
    for folder in ("a", "b"):
        (tmp_path / "models" / folder).mkdir()
        (tmp_path / "models" / folder / "chat.jinja").write_text(CHATML, encoding="utf-8")
    rows = find_templates([tmp_path / "models"])
    assert [(row.name, row.own_tokenizer) for row in rows] == [
        ("config-only", False),
        ("tiny", True),
        ("a/chat", False),
        ("b/chat", False),
    ]
    try_templates(rows[:2], None)
    assert [row.outcomes["plain"].kind for row in rows[:2]] == [PROVEN, PROVEN]
    with pytest.raises(InputError, match="no chat template; give"):
        find_templates([tmp_path / "none"])


def test_a_models_template_is_shown_with_targets_and_checks(tiny_tokenizer_dir, tmp_path, capsys):
    import shutil

    model = tmp_path / "model"
    shutil.copytree(tiny_tokenizer_dir, model)
    (model / "generation_config.json").write_text('{"eos_token_id": [0]}', encoding="utf-8")
    assert main(["template", str(model)]) == 0
    shown = capsys.readouterr().out
    assert "⟦Yes, it is.<|im_end|>⟧" in shown or "Yes, it is.<|im_end|>⟧" in shown
    assert "enable_thinking (the prompt with False: '<|im_start|>assistant\\n<think>\\n\\n</think>\\n\\n')" in shown
    assert "generation_config.json doesn't stop at '<|im_end|>' (2): add it to eos_token_id" in " ".join(shown.split())
    assert len(shown.splitlines()) <= 100
    coloured = template_text(str(model), None, True)
    assert "\x1b[32mYes, it is.<|im_end|>\x1b[0m" in coloured


def test_checks_say_what_a_template_leaves_out_or_moves():
    moving = (
        "{% for m in messages %}{% if m.role == 'system' %}{% elif m.role == 'user' %}[INST]"
        "{% if loop.index0 == 1 and messages[0].role == 'system' %}{{ messages[0].content }} {% endif %}{{ m.content }}"
        "[/INST]{% else %}{{ m.content }}</s>{% endif %}{% endfor %}"
    )
    with tempfile.TemporaryDirectory() as scratch:
        subject = load_template(moving, None, {}, Path(scratch))
        checks = {
            check.name: check for check in all_checks(subject, PROBES, {p.name: prove(subject, p) for p in PROBES})
        }
    assert "the system message is moved into the user's turn" in checks["kept"].text
    assert "tool calls are left out" in checks["kept"].text and "reasoning is left out" in checks["kept"].text
    assert checks["stable"].good and checks["prompt"].good and "'</s>'" in checks["stops"].text


def test_a_template_file_takes_the_tokens_of_a_given_tokenizer(tmp_path, tiny_tokenizer_dir):
    path = tmp_path / "chat.jinja"
    path.write_text(CHATML, encoding="utf-8")
    with tempfile.TemporaryDirectory() as scratch:
        subject = load_subject(str(path), str(tiny_tokenizer_dir), Path(scratch))
        assert subject.bundle.control_tokens == ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
        assert prove(subject, BY_NAME["system"]).kind == PROVEN
    with pytest.raises(InputError, match="has a tokenizer of its own"), tempfile.TemporaryDirectory() as scratch:
        load_subject(str(tiny_tokenizer_dir), str(tiny_tokenizer_dir), Path(scratch))


def test_the_table_is_written_by_the_command(tmp_path, capsys):
    (tmp_path / "chat.jinja").write_text(CHATML, encoding="utf-8")
    out = tmp_path / "docs" / "templates.md"
    assert main(["template", "--table", str(tmp_path / "chat.jinja"), "--out", str(out)]) == 0
    assert "1 templates, 10 cells: " in capsys.readouterr().out
    assert out.read_text(encoding="utf-8").startswith("# What is proven on which chat template\n")
    assert main(["template"]) == 1
    assert "give either M" in capsys.readouterr().err


def test_signs_of_turns_are_found_by_rendering(tiny_tokenizer_dir):
    signs = load_signs(str(tiny_tokenizer_dir))
    assert signs.text(list(signs.header)) == "<|im_start|>assistant\n"
    assert [signs.text([end]) for end in signs.ends] == ["<|im_end|>"]
    assert signs.text(list(signs.system_header)) == "<|im_start|>system\n"


def test_targets_that_reach_into_the_next_header_are_wrong():
    with tempfile.TemporaryDirectory() as scratch:
        subject = load_template(CHATML, None, {}, Path(scratch))

        def reaching(ids, mask):
            opening = subject.official.convert_tokens_to_ids("<|im_start|>")
            place = [i for i, number in enumerate(ids) if number == opening][2]  # of the second question
            return [target or place - 2 < i <= place for i, target in enumerate(mask)]

        outcome = prove(_with_mask(subject, reaching, next_token=2), BY_NAME["multi-turn"])
    assert (outcome.kind, outcome.detail) == (WRONG, "what opens the next turn is in the targets of answer 2")


def test_a_token_of_headers_and_of_ends_is_no_header_behind_an_answer():
    template = (
        "{% for m in messages %}<|open|>{{ m.role }}<|sep|>{{ m.content }}<|close|>{{ m.role }}<|sep|>{% endfor %}"
        "{% if add_generation_prompt %}<|open|>assistant<|sep|>{% endif %}"
    )
    outcome = tried(template, "multi-turn")
    assert (outcome.kind, outcome.turns[0].text) == (PROVEN, "It reaches ninety metres.<|close|>assistant<|sep|>")
    inside = "{{ '<|open|>said<|sep|>' if m.role == 'assistant' }}{{ m.content }}"
    outcome = tried(template.replace("{{ m.content }}", inside), "empty content")
    assert (outcome.kind, outcome.turns[0].text) == (PROVEN, "<|open|>said<|sep|><|close|>assistant<|sep|>")


def test_targets_that_end_with_what_opens_every_turn_are_wrong():
    template = CHATML.replace("<|im_end|>", "")
    with tempfile.TemporaryDirectory() as scratch:
        subject = load_template(template, None, {}, Path(scratch))
        opening = subject.official.convert_tokens_to_ids("<|im_start|>")
        assert subject.example(BY_NAME["plain"])["reason"] == "no-end-token"

    class Ended(Subject):
        def example(self, probe):
            ids = self.official_ids(probe.messages(), None)
            answer = [i for i, number in enumerate(ids) if number == opening][1:3]
            mask = [answer[0] + 3 < i <= answer[1] for i in range(len(ids))]
            empty = {"reason": None, "notes": [], "left_out_turns": []}
            return {"input_ids": ids, "assistant_masks": mask, "turn_ends": [answer[1] + 1], **empty}

    names = ("bundle", "template", "engine", "official", "place")
    ended = Ended(**{name: getattr(subject, name) for name in names})
    longer = replace(BY_NAME["multi-turn"], stored=BY_NAME["multi-turn"].stored[:3])
    assert "what opens the next turn is in the targets of answer 2" in prove(ended, longer).detail
