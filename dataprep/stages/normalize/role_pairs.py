"""Everyday names for the two who speak, understood where a whole conversation has exactly one such pair."""

from collections.abc import Mapping

# (user, assistant), in lower case; only pairs of which nobody doubts who asks and who answers.
ROLE_PAIRS = (
    *[("user", name) for name in ("assistant", "bot", "ai", "agent", "chatbot", "gpt", "chatgpt", "model", "expert")],
    *[("human", name) for name in ("assistant", "bot", "ai", "agent", "chatbot", "gpt", "chatgpt", "model", "robot")],
    *[("client", name) for name in ("counselor", "counsellor", "therapist", "psychologist", "coach", "advisor")],
    *[("client", name) for name in ("lawyer", "consultant", "agent", "assistant")],
    *[("patient", name) for name in ("doctor", "therapist", "physician", "nurse", "psychologist", "counselor")],
    *[("customer", name) for name in ("agent", "assistant", "support", "representative", "salesperson", "bot")],
    *[
        ("seeker", "supporter"),
        ("student", "teacher"),
        ("student", "tutor"),
        ("learner", "tutor"),
        ("pupil", "teacher"),
    ],
    *[("caller", "operator"), ("caller", "agent"), ("visitor", "guide"), ("tourist", "guide")],
    *[("questioner", "answerer"), ("asker", "answerer"), ("question", "answer"), ("q", "a")],
    *[("来访者", name) for name in ("咨询师", "心理咨询师", "治疗师", "心理治疗师", "心理医生", "倾听者")],
    *[("求助者", name) for name in ("咨询师", "心理咨询师", "支持者", "倾听者")],
    *[("咨询者", name) for name in ("咨询师", "心理咨询师", "律师")],
    *[("患者", name) for name in ("医生", "大夫", "医师", "护士")],
    *[("病人", name) for name in ("医生", "大夫", "医师", "护士")],
    *[("用户", name) for name in ("助手", "助理", "客服", "机器人", "模型", "ai", "ai助手", "智能助手", "专家")],
    *[("人类", name) for name in ("助手", "助理", "机器人", "ai", "ai助手")],
    *[("客户", name) for name in ("客服", "销售", "顾问", "坐席", "经理")],
    *[("顾客", name) for name in ("客服", "店员", "售货员", "销售")],
    *[("学生", "老师"), ("学生", "教师"), ("家长", "老师"), ("当事人", "律师"), ("游客", "导游")],
    *[("提问者", "回答者"), ("提问", "回答"), ("问题", "回答"), ("问题", "答案"), ("问", "答")],
)

_USERS = {frozenset(pair): pair[0] for pair in ROLE_PAIRS}
_DECORATION = " \t\r\n\u3000:：*[]【】<>|"


def with_role_pair(names: set[str], roles: Mapping[str, str]) -> Mapping[str, str]:
    """Add the two names of a conversation to its roles where they are one of the pairs, in any case, `Client:` too.

    `names` are all role names of the conversation. Those of system and tool messages don't count; what `roles` says of
    a name goes before the pair, and a pair that contradicts it is none.
    """
    known = {name: roles.get(name, roles.get(plain_name(name))) for name in names}
    speakers = {name for name, role in known.items() if role in (None, "user", "assistant")}
    if all(name in roles for name in names):
        return roles
    user = _USERS.get(frozenset(plain_name(name) for name in speakers))
    if user is None:
        return roles
    meant = {name: "user" if plain_name(name) == user else "assistant" for name in speakers}
    if any(known[name] not in (None, role) for name, role in meant.items()):
        return roles
    return {**roles, **{name: role for name, role in known.items() if role is not None}, **meant}


def plain_name(name: str) -> str:
    """Give a speaker's name in lower case, without the colon, brackets, stars and white space around it."""
    return name.strip(_DECORATION).lower()
