"""Everyday names for the two who speak, understood where a whole conversation has exactly one such pair."""

from collections.abc import Iterable, Mapping

# (user, assistant), in lower case; only pairs of which nobody doubts who asks and who answers.
ROLE_PAIRS = (
    *[("user", name) for name in ("assistant", "bot", "ai", "agent", "chatbot", "gpt", "chatgpt", "model", "expert")],
    *[("user", name) for name in ("robot", "sys", "therapist", "counselor", "doctor", "operator")],
    *[(user, name) for user in ("user", "human") for name in ("bing", "bard", "claude")],
    *[("visitor", name) for name in ("counselor", "therapist", "psychologist", "agent", "assistant")],
    *[("usr", name) for name in ("sys", "bot", "assistant", "agent")],
    *[("human", name) for name in ("assistant", "bot", "ai", "agent", "chatbot", "gpt", "chatgpt", "model", "robot")],
    *[("client", name) for name in ("counselor", "counsellor", "therapist", "psychologist", "coach", "advisor")],
    *[("client", name) for name in ("lawyer", "consultant", "agent", "assistant", "psychotherapist")],
    *[
        ("patient", name)
        for name in ("doctor", "therapist", "physician", "nurse", "psychologist", "counselor", "psychiatrist")
    ],
    *[
        ("customer", name)
        for name in ("agent", "assistant", "support", "representative", "salesperson", "bot", "operator")
    ],
    *[
        ("seeker", "supporter"),
        ("seeker", "counselor"),
        ("seeker", "therapist"),
        ("speaker", "listener"),
        ("apprentice", "wizard"),
        ("student", "teacher"),
        ("student", "tutor"),
        ("learner", "tutor"),
        ("pupil", "teacher"),
    ],
    *[("caller", "operator"), ("caller", "agent"), ("visitor", "guide"), ("tourist", "guide")],
    *[("questioner", "answerer"), ("asker", "answerer"), ("question", "answer"), ("q", "a")],
    *[
        ("来访者", name)
        for name in ("咨询师", "心理咨询师", "治疗师", "心理治疗师", "心理医生", "心理老师", "倾听者", "助手")
    ],
    *[("求助者", name) for name in ("咨询师", "心理咨询师", "支持者", "倾听者")],
    *[("咨询者", name) for name in ("咨询师", "心理咨询师", "律师")],
    *[("用户", name) for name in ("咨询师", "心理咨询师", "医生", "律师", "系统", "小助手", "智能客服")],
    *[("患者", name) for name in ("医生", "大夫", "医师", "护士")],
    *[("病人", name) for name in ("医生", "大夫", "医师", "护士")],
    *[("用户", name) for name in ("助手", "助理", "客服", "机器人", "模型", "ai", "ai助手", "智能助手", "专家")],
    *[("人类", name) for name in ("助手", "助理", "机器人", "ai", "ai助手")],
    *[("客户", name) for name in ("客服", "销售", "顾问", "坐席", "经理")],
    *[("顾客", name) for name in ("客服", "店员", "售货员", "销售")],
    *[("客人", "店员"), ("买家", "卖家"), ("顾客", "导购")],
    *[("学生", "老师"), ("学生", "教师"), ("家长", "老师"), ("当事人", "律师"), ("游客", "导游")],
    *[("提问者", "回答者"), ("提问", "回答"), ("问题", "回答"), ("问题", "答案"), ("题目", "答案"), ("问", "答")],
    *[("用戶", "助手"), ("使用者", "助理"), ("使用者", "助手"), ("來訪者", "諮商師"), ("來訪者", "諮詢師")],
    *[("個案", "諮商師"), ("患者", "醫生"), ("病人", "醫生"), ("客戶", "客服"), ("學生", "老師")],
    *[("問題", "回答"), ("問題", "答案"), ("提問", "回答"), ("問", "答")],
    *[("ユーザー", "アシスタント"), ("患者", "医師"), ("質問者", "回答者"), ("質問", "回答"), ("質問", "答え")],
    *[("相談者", "カウンセラー"), ("お客様", "店員"), ("客", "店員")],
    *[("사용자", name) for name in ("챗봇", "어시스턴트", "상담사", "봇")],
    *[("내담자", "상담사"), ("환자", "의사"), ("고객", "상담원"), ("질문", "답변"), ("질문", "대답")],
    *[("usuario", "asistente"), ("paciente", "terapeuta"), ("paciente", "médico"), ("pregunta", "respuesta")],
    *[("usuário", "assistente"), ("pergunta", "resposta"), ("utilisateur", "assistant"), ("question", "réponse")],
    *[("nutzer", "assistent"), ("patient", "arzt"), ("frage", "antwort"), ("utente", "assistente")],
    *[("domanda", "risposta"), ("пользователь", "ассистент"), ("клиент", "психолог"), ("пациент", "врач")],
    *[("вопрос", "ответ")],
)

# Of them, those that name what is said and not who says it.
SAID_PAIRS = frozenset(
    [
        *[("question", "answer"), ("q", "a"), ("问", "答"), ("问题", "回答"), ("问题", "答案"), ("提问", "回答")],
        *[("题目", "答案"), ("問", "答"), ("問題", "回答"), ("問題", "答案"), ("提問", "回答")],
        *[("質問", "回答"), ("質問", "答え"), ("질문", "답변"), ("질문", "대답"), ("question", "réponse")],
        *[("pregunta", "respuesta"), ("pergunta", "resposta"), ("domanda", "risposta"), ("frage", "antwort")],
        ("вопрос", "ответ"),
    ]
)

_USERS = {frozenset(pair): pair[0] for pair in ROLE_PAIRS}
_SPEAKERS = frozenset(name for pair in ROLE_PAIRS if pair not in SAID_PAIRS for name in pair)
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


def may_speak(name: str, roles: Mapping[str, str]) -> bool:
    """Tell whether a name is that of a role, or of one of those pairs who speak."""
    return name in roles or (plain := plain_name(name)) in roles or plain in _SPEAKERS


def pair_of(names: Iterable[object]) -> tuple[str, str] | None:
    """Give the first two of some names that are a pair who speak, the user's first; None where there are none.

    Pairs that name what is said, such as question and answer, are none: each may be a dialogue of its own.
    """
    plain = {plain_name(name): name for name in names if type(name) is str}
    if len(plain) < 2:
        return None
    pairs = (pair for pair in ROLE_PAIRS if pair not in SAID_PAIRS)
    found = next((pair for pair in pairs if pair[0] in plain and pair[1] in plain), None)
    return None if found is None else (plain[found[0]], plain[found[1]])


def plain_name(name: str) -> str:
    """Give a speaker's name in lower case, without the colon, brackets, stars and white space around it."""
    return name.strip(_DECORATION).lower()
