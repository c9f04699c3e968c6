"""What in a text is personal: e-mail addresses, phone, ID and card numbers, IP addresses, keys.

Regular expressions propose; check digits, dates of birth, numbering plans (python-stdnum, phonenumbers) and the words
before a number decide. What exists to be shown is left alone: addresses at example.com, telephones of films (555),
card numbers for tests, private and well-known IP addresses, keys made of x or named EXAMPLE.
"""

import ipaddress
import re
from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Found:
    """Something personal at [start, stop) of a text."""

    start: int
    stop: int
    kind: str


MARKS = {  # in the order of precedence where two claim the same characters
    "key": "[KEY]",
    "email": "[EMAIL]",
    "id": "[CN_ID]",
    "card": "[BANK_CARD]",
    "phone": "[PHONE]",
    "ip": "[IP]",
}

_Span = tuple[int, int]

_BEFORE = r"(?<![A-Za-z0-9_#$¥￥€£])(?<![A-Za-z0-9][-.,])"  # a number begins here, not in a word, a price or a decimal
_AFTER = r"(?![A-Za-z0-9_%])(?![.,-]\d)"

_KEY = re.compile(
    r"(?<![A-Za-z0-9_-])(?:"
    r"(?:AKIA|ASIA)[A-Z0-9]{16}|LTAI[A-Za-z0-9]{12,26}|AKID[A-Za-z0-9]{32}"
    r"|sk-(?:[a-z0-9]{2,8}-){0,3}[A-Za-z0-9_-]{20,}|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}"
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}"
    r"|hf_[A-Za-z0-9]{30,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|AIza[A-Za-z0-9_-]{35}"
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"
    r")(?![A-Za-z0-9_-])"
)
KEY_MARKS = (
    *("AKIA", "ASIA", "LTAI", "AKID", "sk-", "k_live_", "k_test_", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"),
    *("github_pat_", "glpat-", "hf_", "xox", "AIza", "eyJ"),
)
_BEARER = re.compile(r"[Bb]earer[ \t]+([A-Za-z0-9._~+/-]{20,}=*)")
_PRIVATE_KEY = re.compile(
    r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:(?!-----)[\s\S]){64,}"
    r"(?:-----END (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----)?"
)
_PLACEHOLDER = re.compile(r"xxxx|\*\*\*|\.\.\.|your|example|placeholder|123456789|abcdefgh", re.IGNORECASE)

_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+@-])[A-Za-z0-9_%+-]+(?:\.[A-Za-z0-9_%+-]+)*"
    r"@((?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,})(?![A-Za-z0-9_@(-])(?!\.[A-Za-z0-9])"
)
_TOP_DOMAINS = (
    "com net org edu gov mil int info biz name pro mobi asia tel jobs travel coop post xyz online site top shop store "
    "club vip wang ltd group work live life cloud app dev tech space website email link fun icu win blog news media "
    "team world company global network agency digital solutions services academy health care center today"
)
_FILES = "py js ts md rs sh cc so ps pl"  # of countries' domains, those that end files' names
_SHOWN_DOMAINS = re.compile(
    r"(?:.*\.)?(?:example[a-z0-9-]*|test|invalid|localhost|local|(?:your|my)?-?(?:domain|company|email)(?:-?name)?|xxx+)"
    r"(?:\.(?:com|org|net|edu|cn|com\.cn))?"
)

_CN_ID = re.compile(
    r"(?<![A-Za-z0-9_.-])[1-8]\d{5}[ -]?(?:19|20)\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])[ -]?\d{3}[\dXx]"
    r"(?![A-Za-z0-9_-])(?!\.\d)"
)
_CN_OLD_ID = re.compile(
    r"(?<![A-Za-z0-9_.-])[1-8]\d{5}\d{2}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\d{3}(?![A-Za-z0-9_.-])"
)
_ID_WORDS = re.compile(r"身份证|證件|证件|户口|identity|\bID\b|national id", re.IGNORECASE)

_CARD = re.compile(
    _BEFORE
    + r"(?:\d{14,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|\d{4}([ -])\d{6}\2\d{4,5}|62\d{4}[ -]\d{10,13})"
    + _AFTER
)
_CARD_BRANDS = {  # length: how a number of it begins
    14: re.compile(r"30[0-5]|3[68]"),
    15: re.compile(r"3[47]"),
    16: re.compile(r"4|5[1-5]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|6011|64[4-9]|65|62|35(?:2[89]|[3-8])"),
    17: re.compile(r"62"),
    18: re.compile(r"62"),
    19: re.compile(r"62|9558|4"),
}
_TEST_CARDS = (
    "4111111111111111 4242424242424242 4012888888881881 4000056655665556 5555555555554444 5105105105105100 "
    "5200828282828210 2223003122003222 378282246310005 371449635398431 6011111111111117 6011000990139424 "
    "3530111333300000 3566002020360505 30569309025904 38520000023237 6200000000000005"
)

_CN_MOBILE = re.compile(
    _BEFORE + r"(?:\(?(?:\+|00)86\)?[ -]?|86[ -])?1[3-9]\d([ -]?)\d{4}\1\d{4}" + _AFTER + r"(?!\s*[元万亿])"
)
_CN_LANDLINE = re.compile(
    r"(?<![A-Za-z0-9_.,#-])(?:[(（]0\d{2,3}[)）][ -]?|0\d{2,3}[ -]?)[2-8]\d{2,3}[ -]?\d{4}" + _AFTER
)
_INTERNATIONAL = re.compile(r"(?<![A-Za-z0-9_)\]}+*/=^,.-])\(?\+\(?\d[\d ().-]{5,20}\d(?![\dA-WYZa-wyz_%])")
_EXTENSION = re.compile(r" ?(?:x|ext\.?) ?\d{1,5}(?!\d)", re.IGNORECASE)
_AMERICAN = re.compile(
    r"(?<![A-Za-z0-9_.,#$+-])(?:1[ .-])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[-.])[2-9]\d\d[-.]\d{4}"
    r"(?![0-9A-WYZa-wyz_%])(?![.,-]\d)"
)
_FILM_NUMBER = re.compile(r"(?:\+?1)?\d{3}555\d{4}")
_PHONE_WORDS = re.compile(
    r"电话|電話|手机|手機|座机|热线|传真|致电|联系|拨打|微信|短信|tel|phone|mobile|cell|call|fax|contact|whatsapp",
    re.IGNORECASE,
)
_NUMBER_WORDS = re.compile(
    r"订单|訂單|单号|編號|编号|流水|快递|运单|编码|条码|序列|学号|工号|账号|QQ|order|serial|tracking|invoice|isbn|issn|barcode"
    r"|timestamp|\bid\b|\bno\.|\bsku\b|[?&]\w+=$|\"\w*id\": ?\"?$",
    re.IGNORECASE,
)
_CARD_WORDS = re.compile(r"卡|card|visa|银联|unionpay|debit|credit", re.IGNORECASE)

_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_IPV4 = re.compile(rf"(?<![A-Za-z0-9_.-])(?:{_OCTET}\.){{3}}{_OCTET}(?![A-Za-z0-9_]|\.\d|-\d)")
_IPV6 = re.compile(r"(?<![A-Za-z0-9_:.])[23][0-9A-Fa-f]{3}:(?:[0-9A-Fa-f]{0,4}:){1,6}[0-9A-Fa-f]{0,4}(?![A-Za-z0-9_:])")
_IP_WORDS = re.compile(r"\bip|地址|address|host|server|服务器|主机|ping|ssh|://$|@$|login|登录", re.IGNORECASE)
_VERSION_WORDS = re.compile(
    r"(?:version|release|\bv|\bver\.?|版本|build|driver|firmware|固件|驱动|section|chapter|章|节|条|/)[号为是: ]*$",
    re.IGNORECASE,
)
_KNOWN_ADDRESSES = (
    "8.8.8.8 8.8.4.4 1.1.1.1 1.0.0.1 9.9.9.9 114.114.114.114 114.114.115.115 223.5.5.5 223.6.6.6 119.29.29.29 "
    "180.76.76.76 208.67.222.222 208.67.220.220 2001:4860:4860::8888 2001:4860:4860::8844 2606:4700:4700::1111"
)


def find_personal(text: str, kinds: frozenset[str] = frozenset(MARKS)) -> list[Found]:
    """Find what is personal in a text, in order, without overlaps; kinds are the keys of MARKS."""
    found: list[Found] = []
    for kind, find in _FINDERS.items():
        for start, stop in find(text) if kind in kinds else ():
            at = bisect_left(found, start, key=lambda one: one.start)
            if (at == 0 or found[at - 1].stop <= start) and (at == len(found) or stop <= found[at].start):
                found.insert(at, Found(start, stop, kind))
    return found


def _keys(text: str) -> Iterator[_Span]:
    if "PRIVATE KEY" in text:
        yield from (match.span() for match in _PRIVATE_KEY.finditer(text))
    if any(mark in text for mark in KEY_MARKS):
        yield from (match.span() for match in _KEY.finditer(text) if _is_random(match[0]))
    if "earer" in text:
        yield from (match.span(1) for match in _BEARER.finditer(text) if _is_random(match[1]))


def _is_random(key: str) -> bool:
    long = max(re.split("[-_]", key), key=len)
    mixed = any(char.isdigit() for char in key) or (any(char.isupper() for char in long) and not long.isupper())
    return len(set(key)) >= 10 and len(long) >= 10 and mixed and not _PLACEHOLDER.search(key)


def _emails(text: str) -> Iterator[_Span]:
    if "@" not in text:
        return
    for match in _EMAIL.finditer(text):
        domain = match[1].lower()
        labels = domain.split(".")
        start = match.start()
        top = labels[-1]
        real = top not in _FILES.split() if len(top) == 2 else top in _TOP_DOMAINS.split()
        in_address = text.endswith(("://", ":"), 0, start) and "://" in text[max(0, start - 40) : start].split(" ")[-1]
        shown = _SHOWN_DOMAINS.fullmatch(domain) or len(labels[-2]) == match.start(1) - start - 1 == 1  # a@b.co
        if real and not in_address and not shown and not match[0].startswith("git@"):
            yield match.span()


def _ids(text: str) -> Iterator[_Span]:
    from stdnum.cn import ric

    for match in _CN_ID.finditer(text):
        number = re.sub("[ -]", "", match[0]).upper()
        if ric.calc_check_digit(number) == number[-1] and _is_persons(number):
            yield match.span()
    for match in _CN_OLD_ID.finditer(text):
        told = _ID_WORDS.search(text, max(0, match.start() - 20), match.start())
        if told and _is_persons(match[0][:6] + "19" + match[0][6:]):
            yield match.span()


def _is_persons(number: str) -> bool:
    """Whether an ID number's date exists and its first six digits are, or once were, a place's.

    Whether they already were at the date of birth says nothing: numbers were first given in 1984.
    """
    from stdnum import numdb
    from stdnum.cn import ric
    from stdnum.exceptions import ValidationError

    try:
        ric.get_birth_date(number)
    except ValidationError:
        return False
    return any(properties for _, properties in numdb.get("cn/loc").info(number[:6])[1:])


def _cards(text: str) -> Iterator[_Span]:
    from stdnum import luhn

    for match in _CARD.finditer(text):
        digits = re.sub("[ -]", "", match[0])
        brand = _CARD_BRANDS.get(len(digits))
        if brand is None or not brand.match(digits) or digits in _TEST_CARDS.split() or len(set(digits)) < 4:
            continue
        if luhn.is_valid(digits) and (match[0] != digits or not _is_other_number(text, match.start(), _CARD_WORDS)):
            yield match.span()


def _is_other_number(text: str, start: int, words: re.Pattern[str]) -> bool:
    """Whether what stands before a number says that it is one of orders or the like, and none of `words` does."""
    before = max(0, start - 24)
    return bool(_NUMBER_WORDS.search(text, before, start)) and not words.search(text, before, start)


def _phones(text: str) -> Iterator[_Span]:
    for match in _CN_MOBILE.finditer(text):
        if _is_phone(match[0], "CN") and not _is_another(text, match):
            yield match.span()
    for match in _CN_LANDLINE.finditer(text):
        told = not match[0].isdigit() or _is_told(text, match.start())
        if told and _is_phone(match[0], "CN") and not _is_another(text, match):
            yield match.span()
    if "+" in text:
        yield from _international_phones(text)
    for match in _AMERICAN.finditer(text):
        if _is_phone(match[0], "US"):
            yield match.start(), _with_extension(text, match.end())


def _is_told(text: str, start: int) -> bool:
    return bool(_PHONE_WORDS.search(text, max(0, start - 16), start))


def _is_another(text: str, match: re.Match[str]) -> bool:
    """Whether a number is of an order or the like, or is but some groups in a row of more."""
    start, stop = match.span()
    if match[0].isdigit():
        return _is_other_number(text, start, _PHONE_WORDS)
    in_row = (text[start - 1 : start] == " " and text[start - 2 : start - 1].isdigit()) or (
        text[stop : stop + 1] == " " and text[stop + 1 : stop + 2].isdigit()
    )
    return in_row and " " in match[0] and not _is_told(text, start)


def _with_extension(text: str, stop: int) -> int:
    extension = _EXTENSION.match(text, stop)
    return extension.end() if extension else stop


def _international_phones(text: str) -> Iterator[_Span]:
    for match in _INTERNATIONAL.finditer(text):
        for end in range(len(match[0]), 7, -1):  # the longest that is a number: a year may follow it
            if (
                match[0][end - 1].isdigit()
                and not match[0][end : end + 1].isdigit()
                and _is_phone(match[0][:end], None)
            ):
                yield match.start(), _with_extension(text, match.start() + end)
                break


def _is_phone(number: str, region: str | None) -> bool:
    import phonenumbers
    from phonenumbers import PhoneNumberType as Kind

    if _FILM_NUMBER.fullmatch(re.sub("[^+0-9]", "", number)) and region != "CN":
        return False
    try:
        parsed = phonenumbers.parse(re.sub("[（）]", " ", number).strip(), region)
    except phonenumbers.NumberParseException:
        return False
    if not phonenumbers.is_valid_number(parsed):
        return False
    one_persons = (Kind.MOBILE, Kind.FIXED_LINE, Kind.FIXED_LINE_OR_MOBILE, Kind.VOIP, Kind.PERSONAL_NUMBER, Kind.PAGER)
    return phonenumbers.number_type(parsed) in one_persons


def _addresses(text: str) -> Iterator[_Span]:
    for match in _IPV4.finditer(text):
        before = max(0, match.start() - 20), match.start()
        named = _IP_WORDS.search(text, *before)
        if not named and (_VERSION_WORDS.search(text, *before) or len(match[0]) < 11):  # 5.64.52.9: sizes, sections
            continue
        if _is_public(match[0]):
            yield match.span()
    for match in _IPV6.finditer(text):
        if _is_public(match[0]):
            yield match.span()


def _is_public(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    return parsed.is_global and not parsed.is_multicast and str(parsed) not in _KNOWN_ADDRESSES.split()


_FINDERS: dict[str, Callable[[str], Iterator[_Span]]] = {
    "key": _keys,
    "email": _emails,
    "id": _ids,
    "card": _cards,
    "phone": _phones,
    "ip": _addresses,
}
