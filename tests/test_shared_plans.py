"""Plans that serve conversations with other tools and tool calls: they give what plans of its own give each."""

import json
from importlib.resources import files
from typing import Any

import pyarrow as pa
import pytest

from dataprep.core.columns import read_columns
from dataprep.core.sandbox import compile_template
from dataprep.stages import render
from dataprep.stages.chosen import dialogue_of
from dataprep.stages.plan import Dialogue, Plans
from dataprep.stages.render import DEFAULT_OPTIONS, Renderer
from schemas.conversation import CONVERSATION

COLUMNS = pa.schema([CONVERSATION.field(name) for name in ("messages", "tools")])
CONTROLS = ("<|im_start|>", "<|im_end|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "</s>", "[/INST]")
EMPTY = {"reasoning": None, "tool_calls": None, "name": None, "tool_call_id": None, "train": None}
CHATML = (
    "{% for t in tools or [] %}{{ t | tojson }}\n{% endfor %}{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}{% for c in m.tool_calls or [] %}[CALL]<|im_end|>\n{% endfor %}"
    "{% if not m.tool_calls %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def renderer(template: str) -> Renderer:
    names = {"eos_token": "<|im_end|>", "bos_token": "<s>"}
    return Renderer(template, names, CONTROLS, len, compile_template(template))


def weather(name: str, arguments: dict[str, Any], city: str, tools: list[dict[str, Any]]) -> Dialogue:
    """A question, a call, its result, an answer."""
    call = {"id": "call00001", "name": name, "arguments": json.dumps(arguments)}
    messages = [
        {"role": "user", "content": f"How warm is it in {city}?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": '{"celsius": 7}', "name": name, "tool_call_id": "call00001"},
        {"role": "assistant", "content": "Seven degrees."},
    ]
    row = {"messages": [EMPTY | message for message in messages], "tools": json.dumps(tools)}
    return dialogue_of(read_columns(pa.Table.from_pylist([row], schema=COLUMNS)), 0, DEFAULT_OPTIONS)


def tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": sorted(properties)}
    return {"type": "function", "function": {"name": name, "description": f"{name} <é>", "parameters": parameters}}


OSLO = weather("warmth", {"city": "Oslo"}, "Oslo", [tool("warmth", city={"type": "string"})])
ROME = weather("heat_of", {"place": {"lat": 41.9, "city": 'R"o"me'}}, "Rome", [tool("heat_of", place={"type": "any"})])
PARIS = weather("heat", {}, "Paris", [tool("heat"), tool("cold", n={"type": "integer", "default": 1, "enum": [1, 2]})])
ALL = (OSLO, ROME, PARIS)


def shown(plans: Plans, dialogue: Dialogue) -> list[tuple[str, list[int], list[bool]]]:
    """Each example's text, the places of its points, and whether each turn is trained on."""
    examples = []
    for plan in plans.examples:
        pieces = plan.pieces(plan.slot_texts(dialogue.texts))
        starts = [sum(map(len, pieces[:piece])) for piece in plan.point_pieces.tolist()]
        places = [start + offset for start, offset in zip(starts, plan.point_offsets.tolist(), strict=True)]
        examples.append(("".join(pieces), places, plan.turn_trained))
    return examples


@pytest.mark.parametrize("name", ["qwen3", "qwen2_5", "llama3_1", "glm4moe", "lfm2_v2", "gptoss", "nemotron_3_nano"])
def test_shared_plans_give_what_plans_of_their_own_give(name: str) -> None:
    template = (files("trl") / "chat_templates" / f"{name}.jinja").read_text(encoding="utf-8")
    engine = renderer(template)
    for dialogue in ALL:
        try:
            alone = engine.traced_anew(dialogue)
        except render.RefusedError as refused:
            with pytest.raises(render.RefusedError, match=refused.detail[:20]):
                engine.plans(dialogue)
            continue
        assert shown(engine.plans(dialogue), dialogue) == shown(alone, dialogue)
        assert shown(engine.plans(dialogue), dialogue)[0][0].startswith(engine.official(dialogue))


def test_conversations_with_other_tools_share_a_plan_where_the_template_only_writes_them() -> None:
    template = (files("trl") / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
    engine = renderer(template)
    assert engine.plans(OSLO) is engine.plans(ROME)
    assert engine.plans(PARIS) is not engine.plans(OSLO)  # two tools: another text between them


def test_what_a_template_asks_of_a_tool_divides_plans() -> None:
    asks = "{% if tools[0].function.name == 'heat_of' %}HOT {% endif %}" + CHATML.replace(
        "[CALL]", "{{ c.function.name }}"
    )
    engine = renderer(asks)
    assert engine.plans(ROME) is not engine.plans(OSLO)
    for dialogue in ALL:
        assert shown(engine.plans(dialogue), dialogue)[0][0] == engine.official(dialogue)


def test_a_template_that_leaves_out_calls_is_found_out() -> None:
    engine = renderer(CHATML)
    with pytest.raises(render.RefusedError, match="leaves out its tool calls"):
        engine.plans(OSLO)
    kept = renderer(CHATML.replace("[CALL]", "{{ c | tojson }}"))
    assert shown(kept.plans(OSLO), OSLO)[0][0] == kept.official(OSLO)


def test_values_that_are_written_otherwise_than_by_tojson() -> None:
    inside = CHATML.replace("[CALL]", "{{ {'n': c.function.name, 'a': c.function.arguments} | tojson }}")
    by_items = CHATML.replace(
        "[CALL]",
        "{{ c.function.name }}({% for k, v in c.function.arguments.items() %}{{ k }}="
        "{{ v | tojson if v is mapping else v }}"
        "{{ ',' if not loop.last }}{% endfor %}){{ c.function.arguments | length }}",
    )
    as_python = CHATML.replace("[CALL]", "{{ c.function.name }}{{ c.function.arguments }}")
    for template in (inside, by_items, as_python):
        engine = renderer(template)
        for dialogue in ALL:
            assert shown(engine.plans(dialogue), dialogue)[0][0] == engine.official(dialogue)


def test_shared_plans_are_given_up_where_they_serve_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "FEW_TRACES", 1)
    engine = renderer(CHATML.replace("[CALL]", "{{ c.function.name }}{{ c.function.arguments }}"))
    assert engine.plans(OSLO) is not engine.plans(ROME)
    assert engine.plans(OSLO) is engine.plans(OSLO)
    assert engine._shared_traces == 1
