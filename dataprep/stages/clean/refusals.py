"""Refusals and boilerplate of assistants, in English and Chinese, by listed patterns.

A refusal counts at the head of an answer only (within it, it may be a quotation or advice); boilerplate anywhere.
"""

import re

from stringzilla import find

_CANNOT = r"(?:can(?:'|’|no)t|can not|am (?:not able|unable)|[’']m (?:not able|unable)|won[’']?t|will not)"
_HELP = (
    r"(?:\w+ly )?(?:fulfil|assist|help|comply|provide|create|generate|engage|write|support|answer|discuss|participate"
    r"|share|give|offer|do that)"
)
_SORRY = r"(?:i[’']?m|i am|we[’']?re)? ?(?:very |so |really |truly )?sorry[,.!]?|i apologi[sz]e[,.]?|my apologies[,.]?"
_HEADS = (
    rf"(?:{_SORRY}|unfortunately,?) (?:but |however,? )?(?:as an ai|i ?(?:{_CANNOT}|don[’']t have|do not have))",
    rf"i ?{_CANNOT} (?:to )?{_HELP}",
    r"(?:非常|很|十分|真的)?(?:抱歉|对不起|不好意思)[，,。！! ]*(?:但是?|不过)?[，, ]*(?:我|作为|您|你|这个|该)"
    r"[^。！？\n]{0,12}?(?:无法|不能|不可以|没有办法|没法|不会)",
    r"我(?:无法|不能)(?:[为给][您你])?(?:提供|回答|满足|协助|帮助|参与|执行|生成|完成|讨论)",
)
_AI = r"(?:ai|artificial intelligence|machine learning)"
_LACKS = r"(?:do not|don[’']t|can(?:'|’|no)t|am not|am unable)"
_BOILERPLATE = (
    rf"\bas an? (?:{_AI} (?:large )?(?:language )?(?:model|assistant|chatbot)|(?:large )?language model)\b",
    rf"\bas an? {_AI}, i\b",
    rf"\bi(?:[’']m| am) (?:(?:just|only|merely) an? |an? {_AI} )(?:large )?language model\b",
    rf"\bi(?:[’']m| am) an? (?:large )?language model,? (?:so |and |who |that )?(?:i )?{_LACKS}\b",
    r"\bi(?:[’']m| am| was)\b[^.\n]{0,60}\b(?:trained|developed|created|made) by openai\b|\bi(?:[’']m| am) chatgpt\b",
    r"\bmy (?:knowledge cut-?off|last (?:knowledge )?update)\b",
    r"作为(?:一[个名种款位])?(?:大型|人工智能|AI|语言)+(?:模型|助手|助理|机器人|程序|系统)",
    r"我(?:只是|是)(?:一[个名种款位])?(?:大型|人工智能|AI)+语言模型|我只?是(?:一[个名种款位])?语言模型[，,]?[^。\n]{0,6}(?:无法|不能|没有)",
    r"我[^。\n]{0,20}由 ?OpenAI ?(?:开发|训练|创建|创造|研发)|我(?:的名字)?[是叫] ?ChatGPT|我的知识库?(?:截止|更新)",
)
_REFUSAL = re.compile(rf"\s*(?:{'|'.join(_HEADS)})", re.IGNORECASE)
_PHRASE = re.compile("|".join(_BOILERPLATE), re.IGNORECASE)
# Every boilerplate holds one of these in small letters; to search for them is far quicker than to match.
_WORDS = ["as an ai", "artificial intelligence", "machine learning", "language model", "openai", "chatgpt"]
_WORDS += ["my knowledge", "my last", "an ai ", "作为", "语言模型", "我的知识"]


def found_refusal(answer: str) -> str | None:
    """Give the words by which an answer is a refusal or boilerplate, or None."""
    match = _REFUSAL.match(answer)
    if match is None:
        lower = answer.lower()
        if any(find(lower, word) >= 0 for word in _WORDS):
            match = _PHRASE.search(answer)
    return None if match is None else match[0].strip()
