"""Where turns end, on templates that open turns and close them with the same tokens, or close them not at all."""

import pytest
from test_turns import CALL, TWO, dialogue, renderer, targets

from dataprep.stages.plan import RefusedError

CALLED = {"role": "assistant", "content": "", "tool_calls": [CALL]}


def test_the_token_that_opens_every_turn_ends_none() -> None:
    template = (
        "{% for m in messages %}<|open|>{{ m.role }}{{ '\n' ~ m.content ~ '<|end|>' if m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|open|>assistant\n{% endif %}"
    )
    engine = renderer(template, "<|open|>", "<|end|>")
    unsaid = dialogue(("user", "a"), ("assistant", ""), ("user", "c"), ("assistant", "d"))
    assert targets(engine, unsaid) == ["d<|end|>"]
    assert engine.plan(unsaid).turn_trained == [False, True]
    with pytest.raises(RefusedError, match="message 2: no control token ends its turn"):
        engine.plan(dialogue(("user", "a"), ("assistant", "")))


def test_the_header_of_a_tools_answer_is_no_end_though_an_instruction_behind_a_call_has_it_too() -> None:
    template = (
        "{% for m in messages %}<|open|>{{ {'user': '<|user|>', 'tool': '<|system|>'}[m.role] or '<|bot|>' }}"
        "{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}{% else %}<|end|>{% endfor %}{% endfor %}"
        "<|open|><|system|>Go on.<|end|>{{ '<|open|><|bot|>' if add_generation_prompt }}"
    )
    engine = renderer(template, "<|open|>", "<|user|>", "<|system|>", "<|bot|>", "<|end|>")
    assert targets(engine, dialogue(("user", "a"), CALLED, ("tool", "t"), ("assistant", "d"))) == ["d<|end|>"]
    with pytest.raises(RefusedError, match="message 2: no control token ends its turn"):
        engine.plan(dialogue(("user", "a"), CALLED))


def test_a_second_empty_turn_behind_a_call_is_no_part_of_it() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% elif m.role == 'tool' %}"
        "<|found|>{{ m.content }}<|found_end|>{% else %}{% for c in m.tool_calls %}"
        "<|bot|><|call|>{{ c.function.name }}<|call_end|><|end|>{% endfor %}"
        "{{ '<|bot|>' if loop.previtem.role != 'tool' }}{{ m.content }}<|end|>{% endif %}{% endfor %}"
        "{{ '<|bot|>' if add_generation_prompt and messages[-1].role != 'tool' }}"
    )
    engine = renderer(
        template, "<|user|>", "<|bot|>", "<|end|>", "<|call|>", "<|call_end|>", "<|found|>", "<|found_end|>"
    )
    given = dialogue(("user", "a"), CALLED, ("tool", "t"), ("assistant", "d"))
    assert targets(engine, given) == ["<|call|>look<|call_end|><|end|>", "d<|end|>"]
    assert targets(engine, dialogue(("user", "a"), CALLED)) == ["<|call|>look<|call_end|><|end|>"]
    with pytest.raises(RefusedError, match="message 2: the template makes two turns of it"):
        engine.plan(dialogue(("user", "a"), {**CALLED, "content": "b"}))


def test_a_token_that_opens_turns_may_stand_inside_one() -> None:
    template = (
        "{% for m in messages %}<|open|>{{ m.role }}<|sep|>{{ m.content }}"
        "{% for c in m.tool_calls %}<|open|>call<|sep|>{{ c.function.name }}<|close|>call<|sep|>{% endfor %}"
        "<|close|>{{ m.role }}<|sep|><|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|open|>assistant<|sep|>{% endif %}"
    )
    engine = renderer(template, "<|open|>", "<|sep|>", "<|close|>", "<|end|>")
    given = dialogue(("user", "a"), {**CALLED, "content": "b"}, ("tool", "t"), ("assistant", "d"))
    assert targets(engine, given) == [
        "b<|open|>call<|sep|>look<|close|>call<|sep|><|close|>assistant<|sep|><|end|>",
        "d<|close|>assistant<|sep|><|end|>",
    ]


def test_a_turn_before_another_answer_does_not_end_with_the_token_that_opens_that() -> None:
    template = (
        "{% for m in messages %}{{ '<|user|>' if m.role == 'user' else '<|bot|>' }}{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}<|bot|>{% endif %}"
    )
    engine = renderer(template, "<|user|>", "<|bot|>")
    assert targets(engine, dialogue(*TWO)) == ["b<|user|>", "d<|user|>"]
    assert targets(engine, dialogue(*TWO, ("assistant", "e"))) == ["b<|user|>", "e<|user|>"]


def test_all_the_tokens_that_end_a_turn_are_targets() -> None:
    template = (
        "{% for m in messages %}<|start|>{{ '<|user|>' if m.role == 'user' else '<|bot|>' }}<|text|>{{ m.content }}"
        "<|text_end|><|end|>{% endfor %}{{ '<|start|><|bot|><|text|>' if add_generation_prompt }}"
    )
    engine = renderer(template, "<|start|>", "<|user|>", "<|bot|>", "<|text|>", "<|text_end|>", "<|end|>")
    assert targets(engine, dialogue(*TWO)) == ["b<|text_end|><|end|>", "d<|text_end|><|end|>"]
