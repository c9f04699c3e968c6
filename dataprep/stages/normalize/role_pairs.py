"""Everyday names for the two who speak, understood where a whole conversation has exactly one such pair."""

from collections.abc import Mapping

# (user, assistant), in lower case; only pairs of which nobody doubts who asks and who answers.
ROLE_PAIRS = (
    ("client", "counselor"),
    ("client", "counsellor"),
    ("client", "therapist"),
    ("patient", "therapist"),
    ("patient", "doctor"),
    ("customer", "agent"),
    ("user", "agent"),
    ("seeker", "supporter"),
    ("user", "bot"),
    ("user", "ai"),
    ("human", "bot"),
    ("human", "ai"),
    ("user", "assistant"),
    ("human", "assistant"),
    ("来访者", "咨询师"),
    ("来访者", "心理咨询师"),
    ("求助者", "咨询师"),
    ("求助者", "心理咨询师"),
    ("求助者", "支持者"),
    ("求助者", "倾听者"),
    ("患者", "医生"),
    ("病人", "医生"),
    ("用户", "助手"),
    ("用户", "客服"),
    ("用户", "机器人"),
    ("客户", "客服"),
    ("顾客", "客服"),
    ("问", "答"),
)


def with_role_pair(names: set[str], roles: Mapping[str, str]) -> Mapping[str, str]:
    """Add the two names of a conversation to its roles where they are one of the pairs.

    `names` are all role names of the conversation. Those of system and tool messages don't count; what `roles` says of
    a name goes before the pair, and a pair that contradicts it is none.
    """
    speakers = {name for name in names if roles.get(name) in (None, "user", "assistant")}
    if all(name in roles for name in speakers):
        return roles
    lowered = {name.lower() for name in speakers}
    for pair in ROLE_PAIRS:
        if lowered == set(pair):
            meant = {name: "user" if name.lower() == pair[0] else "assistant" for name in speakers}
            known = {name: roles.get(name, roles.get(name.lower(), role)) for name, role in meant.items()}
            return {**roles, **meant} if known == meant else roles
    return roles
