"""Where each assistant turn begins and ends, on small templates built as published ones are, and on GLM-4's own."""

import shutil
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from corpus import write_jsonl

from dataprep.core.sandbox import compile_template
from dataprep.normalize.run import normalize_corpus
from dataprep.stages.plan import Dialogue, RefusedError
from dataprep.stages.render import Renderer
from dataprep.stages.tracing import FOUND_BY_RENDERING
from dataprep.tokenize.run import tokenize_corpus
from dataprep.tokenize.summary import tokenize_summary
from dataprep.verify.cache import verify_cache
from schemas.manifest import PackOptions

GLM = (files("trl") / "chat_templates" / "glm4moe.jinja").read_text(encoding="utf-8")
GLM_CONTROLS = ["<|endoftext|>", "[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
GPT_OSS = (files("trl") / "chat_templates" / "gptoss.jinja").read_text(encoding="utf-8")
GPT_OSS_CONTROLS = ["<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>"]
CALL = {"type": "function", "id": "c1", "function": {"name": "look", "arguments": {"n": 1}}}
TWO = (("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "d"))


def renderer(template: str, *controls: str, eos: str = "</s>") -> Renderer:
    names = {"bos_token": "<s>", "eos_token": eos}
    return Renderer(template, names, [*controls, eos], len, compile_template(template))


def dialogue(*messages: tuple[str, str] | dict) -> Dialogue:
    given = [m if isinstance(m, dict) else {"role": m[0], "content": m[1]} for m in messages]
    texts = {"content": [m["content"] for m in given], "reasoning": [m.get("reasoning_content", "") for m in given]}
    roles = tuple(m["role"] for m in given)
    return Dialogue(roles=roles, texts=texts, messages=given, extras=str([sorted(m) for m in given]))


def targets(engine: Renderer, given: Dialogue) -> list[str]:
    """The trained turns' targets."""
    plan = engine.plan(given)
    pieces = plan.pieces(plan.slot_texts(given.texts))
    text, places = "".join(pieces), np.cumsum([0, *map(len, pieces)])
    assert text == engine.official(given) + plan.added_end
    points = (places[plan.point_pieces] + plan.point_offsets).reshape(-1, 3).tolist()
    return [text[start:end] for (start, end, _), trained in zip(points, plan.turn_trained, strict=True) if trained]


def next_texts(engine: Renderer, given: Dialogue) -> list[str]:
    """What follows each turn, up to eight characters of it."""
    plan = engine.plan(given)
    pieces = plan.pieces(plan.slot_texts(given.texts))
    text, places = "".join(pieces), np.cumsum([0, *map(len, pieces)])
    points = places[plan.point_pieces] + plan.point_offsets
    return [text[place : place + 8] for place in points[2::3].tolist()]


def test_glm_turns_end_with_the_token_that_the_next_message_begins_with():
    engine = renderer(GLM, *GLM_CONTROLS, eos="<|endoftext|>")
    assert targets(engine, dialogue(*TWO)) == ["\n<think></think>\nb<|user|>", "\n<think></think>\nd<|user|>"]
    assert engine.plan(dialogue(*TWO)).added_end == "<|user|>"


def test_what_follows_a_glm_turn_begins_with_that_token_all_the_same():
    engine = renderer(GLM, *GLM_CONTROLS, eos="<|endoftext|>")
    assert next_texts(engine, dialogue(*TWO)) == ["<|user|>", ""]


def test_a_glm_tool_call_ends_with_the_token_that_its_answer_begins_with():
    engine = renderer(GLM, *GLM_CONTROLS, eos="<|endoftext|>")
    call = "<think></think>\n<tool_call>look\n<arg_key>n</arg_key>\n<arg_value>1</arg_value>\n</tool_call>"
    asked = [("user", "a"), {"role": "assistant", "content": "", "tool_calls": [CALL]}]
    assert targets(engine, dialogue(*asked)) == [f"\n{call}<|observation|>"]
    answered = [*asked, {"role": "tool", "content": "3", "tool_call_id": "c1"}, ("assistant", "three")]
    assert targets(engine, dialogue(*answered)) == [f"\n{call}<|observation|>", "\n<think></think>\nthree<|user|>"]


def test_glm_reasoning_is_a_target_of_the_last_turn():
    engine = renderer(GLM, *GLM_CONTROLS, eos="<|endoftext|>")
    given = dialogue(("user", "a"), {"role": "assistant", "content": "b", "reasoning_content": "hm"})
    assert targets(engine, given) == ["\n<think>hm</think>\nb<|user|>"]


def test_without_any_control_token_after_a_turn_the_end_of_text_token_ends_the_last_one():
    template = (
        "{% for m in messages %}{{ 'Q: ' if m.role == 'user' else 'A: ' }}{{ m.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}A: {% endif %}"
    )
    assert targets(renderer(template), dialogue(*TWO)) == ["d\n</s>"]
    assert renderer(template).plan(dialogue(*TWO)).turn_trained == [False, True]


def test_an_end_of_text_token_is_not_made_up_where_the_template_writes_other_control_tokens():
    template = "{% for m in messages %}; {{ m.role }}<|x|> {{ m.content }}{% endfor %}"
    with pytest.raises(RefusedError, match="message 2: no control token ends its turn"):
        renderer(template, "<|x|>").plan(dialogue(("user", "a"), ("assistant", "b")))


def test_the_token_that_begins_texts_ends_no_turn():
    template = (
        "{% for m in messages %}{{ bos_token ~ '[' ~ m.content ~ ']' if m.role == 'user' else m.content }}{% endfor %}"
    )
    with pytest.raises(RefusedError, match="message 4: no control token ends its turn"):
        renderer(template, "<s>").plan(dialogue(*TWO))


def test_gpt_oss_trains_on_the_last_turn_which_alone_ends_as_inference_ends():
    engine = renderer(GPT_OSS, *GPT_OSS_CONTROLS, eos="<|return|>")
    given = dialogue(*TWO)
    assert targets(engine, given) == ["<|channel|>final<|message|>d<|return|>"]
    assert engine.plan(given).turn_trained == [False, True]


def test_a_turn_is_found_behind_its_header_where_earlier_reasoning_is_left_out():
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{% if m.reasoning_content and not (messages[loop.index0:] | selectattr('role', 'equalto', 'user') | list) %}"
        "<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    engine = renderer(template, "<|im_start|>", "<|im_end|>")
    given = dialogue(
        ("user", "a"),
        {"role": "assistant", "content": "b", "reasoning_content": "r"},
        ("tool", "t"),
        ("assistant", "c"),
        ("user", "d"),
        ("assistant", "e"),
    )
    assert targets(engine, given) == ["b<|im_end|>", "c<|im_end|>", "e<|im_end|>"]


def test_a_turn_is_found_where_the_system_text_moves_to_the_last_user_message():
    template = (
        "{% for m in messages if m.role != 'system' %}{% if m.role == 'user' %}[INST]"
        "{{ messages[0].content ~ '\n' if m == (messages | selectattr('role', 'equalto', 'user') | list)[-1] }}"
        "{{ m.content }}[/INST]{% else %}{{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
    )
    engine = renderer(template, "[INST]", "[/INST]")
    assert targets(engine, dialogue(("system", "s"), *TWO)) == ["b</s>", "d</s>"]


def test_a_tool_call_behind_a_prompt_that_opens_a_think_block_begins_where_both_agree():
    template = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% for c in m.tool_calls %}<tool_call>{{ c.function.name }}</tool_call>{% endfor %}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
    )
    engine = renderer(template, "<|im_start|>", "<|im_end|>")
    given = dialogue(("user", "a"), {"role": "assistant", "content": "", "tool_calls": [CALL]})
    assert targets(engine, given) == ["<tool_call>look</tool_call><|im_end|>"]


def test_what_a_tool_answers_inside_a_models_turn_is_no_target():
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}<|turn>{{ m.content }}<turn|>"
        "{% elif m.role == 'assistant' and m.tool_calls %}<|call>{{ m.tool_calls[0].function.name }}<|answer>"
        "{% if not loop.last %}{{ loop.nextitem.content }}<answer|>{% endif %}{{ m.content }}"
        "{% elif m.role == 'assistant' %}{{ m.content }}<turn|>{% endif %}{% endfor %}"
    )
    engine = renderer(template, "<|turn>", "<turn|>", "<|call>", "<|answer>", "<answer|>")

    def given(said: str) -> Dialogue:
        call = {"role": "assistant", "content": said, "tool_calls": [CALL]}
        return dialogue(("user", "a"), call, ("tool", "t"), ("assistant", "b"))

    assert targets(engine, given("")) == ["<|call>look<|answer>", "b<turn|>"]
    with pytest.raises(RefusedError, match="message 2: the template writes its text behind that of the next message"):
        engine.plan(given("x"))


CHARS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{{ c }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def test_a_template_that_cannot_be_traced_is_rendered_and_searched_for_each_conversation():
    engine = renderer(CHARS, "<|im_start|>", "<|im_end|>")
    assert targets(engine, dialogue(*TWO)) == ["b<|im_end|>", "d<|im_end|>"]
    other = dialogue(("user", "u"), ("assistant", "早。"), ("user", "im"), ("assistant", ""))
    assert targets(engine, other) == ["早。<|im_end|>", "<|im_end|>"]
    assert engine.plan(other).notes == (FOUND_BY_RENDERING,)


def test_without_tracing_a_text_that_holds_a_control_token_is_refused():
    engine = renderer(CHARS, "<|im_start|>", "<|im_end|>")
    with pytest.raises(RefusedError, match="a message holds the text of a control token"):
        engine.plan(dialogue(("user", "<|im_end|>"), ("assistant", "b")))


def test_without_tracing_tool_calls_are_searched_for_control_tokens_too():
    template = CHARS.replace("<|im_end|>", "{% for c in m.tool_calls %}{{ c.function.name }}{% endfor %}<|im_end|>")
    plain = dialogue(("user", "u"), {"role": "assistant", "content": "b", "tool_calls": [CALL]})
    given = replace(plain, texts={**plain.texts, "tool_calls": [None, [CALL]], "tools": [None]})
    assert targets(renderer(template, "<|im_start|>", "<|im_end|>"), given) == ["blook<|im_end|>"]
    call = {**CALL, "function": {"name": "<|im_end|>", "arguments": {}}}
    with pytest.raises(RefusedError, match="a message holds the text of a control token"):
        renderer(template, "<|im_start|>", "<|im_end|>").plan(
            replace(given, texts={**given.texts, "tool_calls": [None, [call]]})
        )


def test_without_tracing_a_text_that_the_template_changes_is_refused():
    template = CHARS.replace("{{ c }}", "{{ c | upper }}")
    with pytest.raises(RefusedError, match="message 1: the template cuts this text"):
        renderer(template, "<|im_start|>", "<|im_end|>").plan(dialogue(("user", "why"), ("assistant", "B")))


def test_plans_that_prove_wrong_are_given_up_and_those_beside_them_checked_each_time():
    template = "{% for m in messages %}{{ m.content }}<|im_end|>{% if 'x' in m.content %}!{% endif %}{% endfor %}"
    engine = renderer(template, "<|im_end|>")
    plain, marked = dialogue(("user", "a"), ("assistant", "b")), dialogue(("user", "x"), ("assistant", "b"))
    engine.plan(plain), engine.plan(marked)
    engine.plan(plain).literals[-1] += "?"  # as if it had been traced wrongly; the next check is at its 4th use
    engine.plan(plain)
    for _ in range(2):
        with pytest.raises(RefusedError, match="the traced rendering is not what the chat template writes"):
            engine.plan(plain)
    engine.plan(marked).literals[-1] += "?"
    with pytest.raises(RefusedError, match="the traced rendering is not what the chat template writes"):
        engine.plan(marked)


@pytest.mark.parametrize(("overflow", "seq_len"), [("cut", 4096), ("cut", 60), ("split", 60)])
def test_a_cache_of_glm_turns_is_verified_and_tells_of_the_ends_that_were_added(
    tmp_path, tiny_tokenizer_dir, overflow, seq_len
):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_tokenizer_dir)
    tokenizer.add_special_tokens({"additional_special_tokens": GLM_CONTROLS[1:]})
    tokenizer.chat_template = GLM
    tokenizer.save_pretrained(tmp_path / "glm")
    said = [("user", "Hi"), ("assistant", "Ho <|user|>"), ("user", "Why?"), ("assistant", "So.")]
    raw = write_jsonl(tmp_path / "raw.jsonl", [said, said[:2], [*said, ("user", "?"), *said[1:]]])
    normalize_corpus([str(raw)], tmp_path / "cache", workers=1)
    options = PackOptions(seq_len=seq_len, overflow=overflow, val_fraction=0.0, seed=0)
    built = tokenize_corpus(tmp_path / "cache", str(tmp_path / "glm"), options, workers=1)
    assert built.manifest.ledger.notes == {"control tokens as text": 3, "end added: <|user|>": 3}
    assert verify_cache(tmp_path / "cache", None).problems == []
    shown = tokenize_summary(built, 0.0)
    assert "3 conversations end with <|user|>, added: the template ends their last turn with nothing" in shown
    assert "3 conversations hold strings of control tokens, which stay text (--control-tokens)" in shown


def test_a_cache_of_a_template_that_cannot_be_traced_is_verified(tmp_path, tiny_tokenizer_dir: Path):
    shutil.copytree(tiny_tokenizer_dir, tmp_path / "model")
    (tmp_path / "model" / "chat_template.jinja").write_text(CHARS, encoding="utf-8")
    said = [("user", "Hi"), ("assistant", "Ho"), ("user", "怎么?"), ("assistant", "So.")]
    raw = write_jsonl(tmp_path / "raw.jsonl", [said, said[:2]])
    normalize_corpus([str(raw)], tmp_path / "cache", workers=1)
    options = PackOptions(seq_len=4096, overflow="cut", val_fraction=0.0, seed=0)
    built = tokenize_corpus(tmp_path / "cache", str(tmp_path / "model"), options, workers=1)
    assert built.manifest.ledger.notes == {"turns found by rendering": 2}
    assert verify_cache(tmp_path / "cache", None).problems == []
    assert "2 conversations were rendered part by part to find their turns" in tokenize_summary(built, 0.0)


def test_a_header_that_is_written_behind_the_last_message_is_no_part_of_its_turn() -> None:
    template = (
        "{% for m in messages %}<|start|>{{ m.role }}<|sep|>{{ m.content }}"
        "{% for c in m.tool_calls or [] %}<|call|>{{ c.function.name }}<|done|>{% endfor %}<|end|>{% endfor %}"
        "<|start|>assistant<|sep|>"
    )
    engine = renderer(template, "<|start|>", "<|sep|>", "<|end|>", "<|call|>", "<|done|>")
    assert targets(engine, dialogue(("user", "a"), ("assistant", "b"))) == ["b<|end|>"]
    call = {"role": "assistant", "content": "b", "tool_calls": [CALL]}
    assert targets(engine, dialogue(("user", "a"), call)) == ["b<|call|>look<|done|><|end|>"]
    longer = template.replace("assistant<|sep|>", "assistant<|sep|><|think|>")
    engine = renderer(longer, "<|start|>", "<|sep|>", "<|end|>", "<|call|>", "<|done|>", "<|think|>")
    assert targets(engine, dialogue(("user", "a"), ("assistant", "b"))) == ["b<|end|>"]


def test_a_header_without_an_end_before_it_is_no_part_of_the_turn_behind_it() -> None:
    template = (
        "{% for m in messages %}{{ '<|user|>' if m.role == 'user' else '<|bot|>' }}{{ m.content }}"
        "{{ '<|end|>' if m.role == 'assistant' }}{% endfor %}<|bot|>"
    )
    engine = renderer(template, "<|user|>", "<|bot|>", "<|end|>")
    assert targets(engine, dialogue(("user", "a"), ("assistant", "b"))) == ["b<|end|>"]


def test_a_call_that_the_template_leaves_out_beside_one_of_the_same_name_is_refused() -> None:
    template = (
        "{% for m in messages %}<|start|>{{ m.role }}\n{{ m.content }}"
        "{% if m.tool_calls %}{{ m.tool_calls[0].function.name }}{% endif %}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
    )
    once = {"role": "assistant", "content": "b", "tool_calls": [CALL]}
    assert targets(renderer(template, "<|start|>", "<|end|>"), dialogue(("user", "a"), once)) == ["blook<|end|>"]
    with pytest.raises(RefusedError, match="leaves out its tool calls"):
        renderer(template, "<|start|>", "<|end|>").plan(dialogue(("user", "a"), {**once, "tool_calls": [CALL, CALL]}))


def test_a_prompt_that_has_a_think_block_more_in_its_middle_ends_where_the_text_begins() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% else %}"
        "<|bot|></think>{{ m.content }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|bot|><think></think>{% endif %}"
    )
    engine = renderer(template, "<|user|>", "<|bot|>", "<|end|>")
    assert targets(engine, dialogue(*TWO)) == ["b<|end|>", "d<|end|>"]
    assert engine.plan(dialogue(*TWO)).turn_differences == ["prompt-differs", "prompt-differs"]


def test_the_token_that_begins_a_text_is_a_target_where_the_prompt_begins_a_thought() -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}{% else %}"
        "<|bot|><|text|>{{ m.content }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|bot|><|thought|>{% endif %}"
    )
    engine = renderer(template, "<|user|>", "<|bot|>", "<|text|>", "<|thought|>", "<|end|>")
    assert targets(engine, dialogue(*TWO)) == ["<|text|>b<|end|>", "<|text|>d<|end|>"]
    other = renderer(template.replace("<|bot|><|text|>", "<|im|>bot "), "<|user|>", "<|im|>", "<|end|>")
    with pytest.raises(RefusedError, match="doesn't begin with its prompt"):
        other.plan(dialogue(*TWO))


def test_an_end_on_a_line_of_its_own_that_the_last_turn_lacks_is_added() -> None:
    template = (
        "{% for m in messages %}{{ '\n<|' ~ m.role ~ '|>\n' ~ m.content }}"
        "{{ '\n<|end|>\n' if m.role == 'assistant' and not loop.last }}{% endfor %}"
        "{{ '\n<|assistant|>\nHere I think:\n' if add_generation_prompt }}"
    )
    engine = renderer(template, "<|user|>", "<|assistant|>", "<|end|>")
    assert targets(engine, dialogue(*TWO)) == ["b\n<|end|>", "d\n<|end|>"]
    assert engine.plan(dialogue(*TWO)).added_end == "\n<|end|>"


def test_a_prompt_that_has_more_in_its_middle_needs_no_control_token_where_all_before_is_the_same():
    template = (
        "{% for m in messages %}{% if m.role == 'user' %}<|user|>{{ m.content }}"
        "{% elif m.role == 'tool' %}<result>{{ m.content }}</result>"
        "{% elif m.tool_calls %}<|bot|><think></think>{{ m.tool_calls[0].function.name }}<|end|>"
        "{% else %}</think>{{ m.content }}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|bot|>' if messages[-1].role == 'user' }}<think></think>{% endif %}"
    )
    engine = renderer(template, "<|user|>", "<|bot|>", "<|end|>")
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    given = dialogue(("user", "a"), call, ("tool", "t"), ("assistant", "b"))
    assert targets(engine, given) == ["look<|end|>", "b<|end|>"]
    assert engine.plan(given).turn_differences == [None, "prompt-differs"]


def test_calls_that_are_a_turn_of_their_own_are_not_said_to_be_left_out():
    template = (
        "{% for m in messages %}{% if m.role != 'assistant' %}<|user|>{{ m.content }}{% else %}"
        "{% if m.tool_calls %}<|bot|>{{ m.tool_calls[0].function.name }}<|end|>{% endif %}"
        "<|bot|>{{ m.content }}<|end|>{% endif %}{% endfor %}{% if add_generation_prompt %}<|bot|><t></t>{% endif %}"
    )
    engine = renderer(template, "<|user|>", "<|bot|>", "<|end|>")
    call = {"role": "assistant", "content": "Looking.", "tool_calls": [CALL]}
    with pytest.raises(RefusedError, match="message 2: the template makes two turns of it"):
        engine.plan(dialogue(("user", "a"), call))
