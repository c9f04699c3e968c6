from importlib.resources import files

import pytest
from jinja2.exceptions import SecurityError
from transformers.utils.chat_template_utils import render_jinja_template

from dataprep.core.sandbox import compile_template, sandbox_agrees
from dataprep.stages.plan import Dialogue, RefusedError
from dataprep.stages.render import Renderer
from dataprep.stages.tracing import in_parts

QWEN3 = (files("trl") / "chat_templates" / "qwen3.jinja").read_text(encoding="utf-8")
TEMPLATES = sorted(p.name for p in (files("trl") / "chat_templates").iterdir() if p.name.endswith(".jinja"))
CONTROLS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def renderer(template: str) -> Renderer:
    return Renderer(template, {"eos_token": "<|im_end|>"}, CONTROLS, len, compile_template(template))


def dialogue(*turns: tuple[str, str]) -> Dialogue:
    return Dialogue(roles=tuple(role for role, _ in turns), texts={"content": [content for _, content in turns]})


def rendered(plan, given: Dialogue) -> str:
    return "".join(plan.pieces(plan.slot_texts(given.texts)))


def targets(plan, given: Dialogue) -> list[str]:
    pieces = plan.pieces(plan.slot_texts(given.texts))
    text, starts = "".join(pieces), [sum(map(len, pieces[:i])) for i in range(len(pieces) + 1)]
    points = [starts[p] + o for p, o in zip(plan.point_pieces.tolist(), plan.point_offsets.tolist(), strict=True)]
    return [text[start:end] for start, end in zip(points[0::3], points[1::3], strict=True)]


def test_qwen3_renders_two_turns_with_targets_of_content_and_end_token():
    given = dialogue(
        ("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello!"), ("user", "2+2?"), ("assistant", "4")
    )
    plan = renderer(QWEN3).plan(given)
    assert rendered(plan, given) == (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n4<|im_end|>\n"
    )
    assert targets(plan, given) == ["Hello!<|im_end|>", "4<|im_end|>"]


def test_what_follows_a_turn_begins_with_the_next_header():
    given = dialogue(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    plan = renderer(QWEN3).plan(given)
    text = rendered(plan, given)
    starts = [0]
    for piece in plan.pieces(plan.slot_texts(given.texts)):
        starts.append(starts[-1] + len(piece))
    places = [starts[p] + o for p, o in zip(plan.point_pieces.tolist(), plan.point_offsets.tolist(), strict=True)]
    assert text[places[2] :].startswith("<|im_start|>user\nc")


def test_a_plan_made_for_one_dialogue_serves_others_of_its_kind():
    one, other = dialogue(("user", "Hi"), ("assistant", "Ho")), dialogue(("user", "早上好"), ("assistant", "您好！"))
    engine = renderer(QWEN3)
    assert engine.plan(one) is engine.plan(other)


def test_a_template_that_looks_into_the_text_gets_a_plan_of_its_own():
    plain = dialogue(("user", "Hi"), ("assistant", "Ho"))
    thought = dialogue(("user", "Hi"), ("assistant", "<think>\nhm\n</think>\n\nHo"))
    engine = renderer(QWEN3)
    assert engine.plan(plain) is not engine.plan(thought)
    assert targets(engine.plan(thought), thought) == ["<think>\nhm\n</think>\n\nHo<|im_end|>"]


def test_reasoning_is_a_target_where_the_template_shows_it():
    messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho", "reasoning_content": "hm"}]
    texts = {"content": ["Hi", "Ho"], "reasoning": ["", "hm"]}
    given = Dialogue(roles=("user", "assistant"), texts=texts, messages=messages, extras="reasoning")
    assert targets(renderer(QWEN3).plan(given), given) == ["<think>\nhm\n</think>\n\nHo<|im_end|>"]


def test_tool_calls_are_targets_and_tool_output_is_never_trained_on():
    call = {"type": "function", "function": {"name": "look", "arguments": {"n": 1.0}}}
    messages = [
        {"role": "user", "content": "How many drills?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": '{"drills": 3}'},
        {"role": "assistant", "content": "Three."},
    ]
    roles, contents = tuple(m["role"] for m in messages), [m["content"] for m in messages]
    texts = {"content": contents, "reasoning": [""] * 4}
    given = Dialogue(roles=roles, texts=texts, messages=messages, extras="call")
    assert targets(renderer(QWEN3).plan(given), given) == [
        '<tool_call>\n{"name": "look", "arguments": {"n": 1.0}}\n</tool_call><|im_end|>',
        "Three.<|im_end|>",
    ]


@pytest.mark.parametrize(
    "content",
    [
        "",
        " ",
        "plain",
        "\n\nlead",
        "trail\n\n",
        "<tool_response>x</tool_response>",
        "<think>a</think>b",
        "</think>",
        "é\u0301",
    ],
)
@pytest.mark.parametrize("name", TEMPLATES)
def test_every_installed_template_is_rendered_as_its_own_or_refused(name, content):
    template = (files("trl") / "chat_templates" / name).read_text(encoding="utf-8")
    controls = [
        "<|im_end|>",
        "<|eot_id|>",
        "<end_of_turn>",
        "<turn|>",
        "<|end|>",
        "<|END_OF_TURN_TOKEN|>",
        "</s>",
        "<|im_start|>",
    ]
    names = {"bos_token": "<s>", "eos_token": "</s>"}
    engine = Renderer(template, names, controls, len, compile_template(template))
    for turns in (
        [("user", content), ("assistant", "fine"), ("user", "more"), ("assistant", content or "x")],
        [("user", "other"), ("assistant", "text"), ("user", content), ("assistant", "end")],
    ):
        given = dialogue(*turns)
        try:
            plan = engine.plan(given)
        except RefusedError as refused:
            assert refused.reason in (
                "template-untraceable",
                "template-refuses",
                "turn-not-found",
                "no-end-token",
                "message-dropped",
            )
            continue
        messages = in_parts(given.chat()) if engine.takes_parts else given.chat()
        official, _ = render_jinja_template([messages], chat_template=template, **names)
        assert rendered(plan, given) == official[0] + plan.added_end


def test_a_template_that_ends_turns_without_a_token_is_refused_where_there_is_no_end_of_text_token():
    template = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    engine = Renderer(template, {}, CONTROLS, len, compile_template(template))
    with pytest.raises(RefusedError, match="message 2: no control token ends its turn"):
        engine.plan(dialogue(("user", "Hi"), ("assistant", "Ho")))


def test_a_template_that_leaves_out_a_message_is_refused():
    template = "{% for m in messages if m.role != 'user' %}{{ m.content }}<|im_end|>{% endfor %}"
    with pytest.raises(RefusedError, match="message 1: the template leaves out this user text"):
        renderer(template).plan(dialogue(("user", "Hi"), ("assistant", "Ho")))


def test_what_the_template_says_is_passed_on():
    template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(RefusedError, match="the chat template says: roles must alternate"):
        renderer(template).plan(dialogue(("user", "Hi"), ("assistant", "Ho")))


def test_a_template_that_measures_a_text_is_answered_for_the_real_text():
    template = "{% for m in messages %}{{ m.content }}{% if m.content|length > 3 %}!{% endif %}<|im_end|>{% endfor %}"
    engine = renderer(template)
    for turns in ([("user", "Hi"), ("assistant", "Ho")], [("user", "Hello"), ("assistant", "Ho")]):
        given = dialogue(*turns)
        assert rendered(engine.plan(given), given) == engine.official(given)


def test_a_template_that_cuts_a_text_is_followed_where_it_cuts_nothing_off():
    template = "{% for m in messages %}{{ m.content[:2] }}<|im_end|>{% endfor %}"
    engine = renderer(template)
    short, long = dialogue(("user", "Hi"), ("assistant", "Ho")), dialogue(("user", "Hello"), ("assistant", "Ho"))
    assert rendered(engine.plan(short), short) == "Hi<|im_end|>Ho<|im_end|>"
    with pytest.raises(RefusedError, match="message 1: the template cuts this user text"):
        engine.plan(long)


def test_a_template_that_goes_through_characters_is_not_traced_but_rendered_each_time():
    template = "{% for m in messages %}{% for c in m.content %}{{ c }}{% endfor %}<|im_end|>{% endfor %}"
    given = dialogue(("user", "Hi"), ("assistant", "Ho"))
    plan = renderer(template).plan(given)
    assert (rendered(plan, given), plan.slots) == ("Hi<|im_end|>Ho<|im_end|>", [])


PIECES = {
    "strip of joined texts": "{{ ('<' ~ m.content ~ ' ') | trim }}",
    "split of joined texts": "{{ ('x</t>' ~ m.content).split('</t>')[-1] }}",
    "find in joined texts": "{{ m.content if '</t>' in ('x</t>' ~ m.content) else 'no' }}",
    "replace": "{{ m.content | replace('i', 'I') }}",
    "first character": "{{ 'A' if m.content[0] == 'A' else 'B' }}{{ m.content }}",
    "index of a key": "{{ 'image' if m.content[0]['type'] == 'image' else m.content }}",
    "comparison of two texts": "{{ m.content }}{{ '!' if m.content == messages[0].content }}",
    "prefix": "{{ m.content.removeprefix('A ') if m.role == 'assistant' else m.content }}",
}


@pytest.mark.parametrize("piece", PIECES)
def test_what_a_template_does_to_joined_texts_is_followed(piece):
    template = "{% for m in messages %}" + PIECES[piece] + "<|im_end|>{% endfor %}"
    engine = renderer(template)
    for texts in (("Hi", "Ho"), ("Hi", "Hi"), ("Ahi", "A ho"), (" A </t> b ", "</t>")):
        given = dialogue(("user", texts[0]), ("assistant", texts[1]))
        try:
            assert rendered(engine.plan(given), given) == engine.official(given)
        except RefusedError as refused:
            assert refused.reason == "message-dropped"


def test_a_prompt_with_another_argument_tells_where_the_targets_begin():
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.role == 'assistant' %}<think></think>{% endif %}{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n"
        "{% if quiet is defined and quiet %}<think></think>{% else %}<think>{% endif %}{% endif %}"
    )
    given = dialogue(("user", "Hi"), ("assistant", "Ho"))
    assert targets(renderer(template).plan(given), given) == ["Ho<|im_end|>"]


def test_what_the_model_must_write_before_its_text_is_a_target():
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}{{ '<|channel|>final' if m.role == 'assistant' }}\n"
        "{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
    )
    given = dialogue(("user", "Hi"), ("assistant", "Ho"))
    assert targets(renderer(template).plan(given), given) == ["<|channel|>final\nHo<|im_end|>"]


def test_an_end_that_only_the_last_turn_has_is_not_trained_on_in_earlier_ones():
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}"
        "{{ '<|endoftext|>' if loop.last and m.role == 'assistant' else '<|im_end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    plan = renderer(template).plan(dialogue(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d")))
    assert plan.turn_trained == [False, True]


def test_what_all_endings_share_up_to_a_control_token_ends_every_turn():
    template = (
        "{% for m in messages %}{{ m.role }}: {{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% else %}<|endoftext|>{% endif %}"
    )
    given = dialogue(("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))
    assert targets(renderer(template).plan(given), given) == ["b<|im_end|>", "d<|im_end|>\n<|endoftext|>"]


def test_joins_with_a_tilde_and_macros_are_followed():
    template = (
        "{% macro show(text) %}{{ text }}{% endmacro %}"
        "{% for m in messages %}{% set c = show(m.content) | trim %}{{ '[' ~ c ~ ']' }}<|im_end|>{% endfor %}"
    )
    engine = renderer(template)
    for turns in ([("user", "Hi"), ("assistant", "Ho")], [("user", " Hi "), ("assistant", "Ho\n")]):
        given = dialogue(*turns)
        assert rendered(engine.plan(given), given) == engine.official(given)
    assert rendered(engine.plan(given), given) == "[Hi]<|im_end|>[Ho]<|im_end|>"


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_sandbox_renders_as_transformers_does(name):
    template = (files("trl") / "chat_templates" / name).read_text(encoding="utf-8")
    names = {"bos_token": "<s>", "eos_token": "</s>"}

    def official(messages, tools, prompt):
        given = {"chat_template": template, "tools": tools, "add_generation_prompt": prompt, **names}
        return render_jinja_template([messages], **given)[0][0]

    assert sandbox_agrees(template, names, official)


def test_a_sandbox_that_differs_is_not_trusted():
    assert not sandbox_agrees("{{ messages|length }}", {}, lambda messages, tools, prompt: f"{len(messages) + 1}")


@pytest.mark.parametrize(
    "template", ["{{ ''.__class__.__mro__ }}", "{% set ns = namespace(_x=1) %}", "{{ messages.clear() }}"]
)
def test_the_sandbox_refuses_what_a_stranger_may_not_do(template):
    with pytest.raises(SecurityError):
        compile_template(template).render(messages=[1])
