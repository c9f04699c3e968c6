"""Personal data: what is found, what is not, and what each mode does. All numbers and names here are made up."""

import json
import sys
from importlib.machinery import ModuleSpec
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("phonenumbers")
pytest.importorskip("stdnum")

from dataprep.stages.clean import personal
from dataprep.stages.clean.cleaned import Cleaned
from dataprep.stages.clean.personal import STEPS, find_personal, make_personal, suspected_kinds
from dataprep.stages.normalize.message import Message, rich_message
from dataprep.stages.normalize.reasons import FIXES, TurnedAway
from schemas.errors import InputError

RANDOM = "Zk3Qv9TmX1bR7wLp5HdYc8NfJ2sGa6UeVt4BoKiM"  # 40 characters

# (kind, text, what is personal in it)
POSITIVE = [
    ("email", "我的邮箱是zhang.wei88@163.com，有事请发邮件。", "zhang.wei88@163.com"),
    ("email", "Write to anna_k@mail.uni-weimar.de, please.", "anna_k@mail.uni-weimar.de"),
    ("email", "<li.na+news@foxmail.com>", "li.na+news@foxmail.com"),
    ("email", "邮件：3309187@qq.com", "3309187@qq.com"),
    ("email", "contact: J.Moreau@labo-optique.fr.", "J.Moreau@labo-optique.fr"),
    ("email", '{"to":"sven@blomgren.online"}', "sven@blomgren.online"),
    ("email", "mailto:pat%40home@riverside.co.uk", "pat%40home@riverside.co.uk"),
    ("email", "请联系 HR：recruit@huayang-tech.com.cn！", "recruit@huayang-tech.com.cn"),
    ("email", "抄送wangfang@vip.sina.com和我", "wangfang@vip.sina.com"),
    ("phone", "我的手机号是13712345608，晚上打给我。", "13712345608"),
    ("phone", "打 137 1234 5608 就行", "137 1234 5608"),
    ("phone", "微信同号：186-2304-9917", "186-2304-9917"),
    ("phone", "+86 159 0172 3365", "+86 159 0172 3365"),
    ("phone", "+8615901723365", "+8615901723365"),
    ("phone", "请拨(+86)15901723365", "(+86)15901723365"),
    ("phone", "0086-15901723365", "0086-15901723365"),
    ("phone", "call me: 19923456781!", "19923456781"),
    ("phone", '{"mobile": "17788456120"}', "17788456120"),
    ("phone", "?phone=17788456120&x=1", "17788456120"),
    ("phone", "张先生13305718842/王女士", "13305718842"),
    ("phone", "家里座机010-62785513", "010-62785513"),
    ("phone", "办公室：(021) 6427 8801", "(021) 6427 8801"),
    ("phone", "（0755）26738814转", "（0755）26738814"),
    ("phone", "电话 057187654321", "057187654321"),
    ("phone", "0571-8765 4321", "0571-8765 4321"),
    ("phone", "+44 20 7123 4567", "+44 20 7123 4567"),
    ("phone", "Ring +49 (30) 901820 before six.", "+49 (30) 901820"),
    ("phone", "Tel.: +33 1 42 68 53 17", "+33 1 42 68 53 17"),
    ("phone", "in Hong Kong +852 2345 6789 or", "+852 2345 6789"),
    ("phone", "+81 3-5321-1199", "+81 3-5321-1199"),
    ("phone", "+91 98765 01234 (Pune)", "+91 98765 01234"),
    ("phone", "My number is (415) 283-9907.", "(415) 283-9907"),
    ("phone", "call 206-733-4419 after 5", "206-733-4419"),
    ("phone", "For help call 910.538.0117.", "910.538.0117"),
    ("phone", "(212) 736-5088 ext. 204 or", "(212) 736-5088 ext. 204"),
    ("phone", "+1-703-799-5157x768", "+1-703-799-5157x768"),
    ("phone", "1-312-867-5309", "1-312-867-5309"),
    ("phone", "+1 650 253 1187 2024", "+1 650 253 1187"),
    ("id", "身份证号11010519491231002X，请核对", "11010519491231002X"),
    ("id", "身份证:440301198507121030", "440301198507121030"),
    ("id", "我叫李雷,310115199910034511,上海人", "310115199910034511"),
    ("id", "ID 510107 20010228 7724", "510107 20010228 7724"),
    ("id", "61011319880130255x", "61011319880130255x"),
    ("id", "320506197604150934。", "320506197604150934"),
    ("id", "老身份证 440301850712103", "440301850712103"),
    ("id", "证件号码：110105491231002", "110105491231002"),
    ("card", "卡号6217003870004926652，户名王芳", "6217003870004926652"),
    ("card", "请转到 6222 0210 0005 8137 141", "6222 0210 0005 8137 141"),
    ("card", "银行卡：6225-8801-3579-2464", "6225-8801-3579-2464"),
    ("card", "6214831209876504", "6214831209876504"),
    ("card", "my Visa is 4539 5776 3628 1015, exp 04/29", "4539 5776 3628 1015"),
    ("card", "card=5200821234567812;", "5200821234567812"),
    ("card", "Amex 3456 789012 34564", "3456 789012 34564"),
    ("card", "4916743290581172 is the number", "4916743290581172"),
    ("card", "6011982736450092", "6011982736450092"),
    ("card", "工行 9558800200051234785", "9558800200051234785"),
    ("ip", "服务器地址 47.93.201.18，端口 22", "47.93.201.18"),
    ("ip", "ssh root@139.196.8.27", "139.196.8.27"),
    ("ip", "121.40.133.206 - - [10/Oct/2023:13:55:36]", "121.40.133.206"),
    ("ip", "ping 93.4.7.12", "93.4.7.12"),
    ("ip", "http://103.235.46.40:8080/x", "103.235.46.40"),
    ("ip", "她的IP是240e:3b7:3272:d8c0:1c6f:5a2e:9b41:77d0。", "240e:3b7:3272:d8c0:1c6f:5a2e:9b41:77d0"),
    ("ip", "from 2a02:908:1391:9e80::b7c1 at noon", "2a02:908:1391:9e80::b7c1"),
    ("key", "export KEY=" + "sk-" + RANDOM, "sk-" + RANDOM),
    ("key", "密钥 " + "sk-" + "proj-" + RANDOM + RANDOM, "sk-" + "proj-" + RANDOM + RANDOM),
    ("key", "sk-" + "9f3b61d07ce24a85b1f6d02e37c94a58", "sk-" + "9f3b61d07ce24a85b1f6d02e37c94a58"),
    ("key", "sk-" + "ant-api03-" + RANDOM, "sk-" + "ant-api03-" + RANDOM),
    ("key", "id=" + "AKIA" + "Z7Q3MWXP5TLD2KHV", "AKIA" + "Z7Q3MWXP5TLD2KHV"),
    ("key", "LTAI" + "5tQz8RmW3bXk7LpVnD4c", "LTAI" + "5tQz8RmW3bXk7LpVnD4c"),
    ("key", "token: " + "ghp_" + RANDOM[:36], "ghp_" + RANDOM[:36]),
    ("key", "github_pat_" + RANDOM, "github_pat_" + RANDOM),
    ("key", "login('" + "hf_" + "QmZrTxWvKpLsHdYcNfJbGaUeVtBoKiMwRz')", "hf_" + "QmZrTxWvKpLsHdYcNfJbGaUeVtBoKiMwRz"),
    ("key", "xoxb-" + "834792017365-" + RANDOM[:24], "xoxb-" + "834792017365-" + RANDOM[:24]),
    ("key", "AIza" + "SyD" + RANDOM[:32], "AIza" + "SyD" + RANDOM[:32]),
    ("key", "Authorization: Bearer " + RANDOM, RANDOM),
    (
        "key",
        "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9." + RANDOM,
        "eyJ" + "hbGciOiJIUzI1NiJ9.eyJzdWIiOiI0MiJ9." + RANDOM,
    ),
    (
        "key",
        "-----BEGIN RSA " + "PRIVATE KEY-----\n" + RANDOM * 3 + "\n-----END RSA " + "PRIVATE KEY-----\n",
        "-----BEGIN RSA " + "PRIVATE KEY-----\n" + RANDOM * 3 + "\n-----END RSA " + "PRIVATE KEY-----",
    ),
    ("key", "glpat-" + RANDOM[:20], "glpat-" + RANDOM[:20]),
    ("key", "sk_" + "live_" + RANDOM[:24], "sk_" + "live_" + RANDOM[:24]),
]

NEGATIVE = [
    "今天是2024年3月15日，2024-03-15 08:30:00，星期五。",
    "20240315083000",
    "The meeting is on 03-15-2024 at 10:30:45, see you 12/25/2023.",
    "1710491400 and 1710491400123 are timestamps",
    "时间戳1710491400123",
    "订单号13812345678已发货",
    "order no. 13912345678 shipped",
    "快递单号：18612345678901",
    "订单编号4539577636281015",
    "tracking number 6214831209876504",
    "圆周率是3.14159265358979323846264338327950288",
    "0.13712345608 and 1.13712345608",
    "π ≈ 3.1415926, e ≈ 2.7182818284590452",
    "12345678901234567890",
    "人口约1400000000人，GDP为18000000000000美元",
    "一共13712345608元",
    "$13,712,345,608 and $4539577636281015",
    "¥13712345608",
    "ISBN 978-7-04-039663-8",
    "ISBN 9787040396638, ISBN-10 7040396638",
    "ISSN 0028-0836",
    "39.904200, 116.407396",
    "116.4073963, 39.9041999",
    "550e8400-e29b-41d4-a716-446655440000",
    "id: 9b2f7c1e-13712345608a-41d4",
    "d41d8cd98f00b204e9800998ecf8427e",
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "commit 4b825dc642cb6eb9a060e54bf8d69288fbee4904",
    "Send it to user@example.com or admin@example.org.",
    "test@localhost, a@test.example, me@foo.invalid",
    "yourname@yourdomain.com",
    "icon@2x.png and logo@3x.webp",
    "y = x@W.T + b@V.sum()",
    "C = A@B.transpose(0, 1)",
    "npm install lodash@4.17.21 react@18.2.0",
    "git clone git@github.com:someone/project.git",
    "postgres://admin:secret@db.internal.net:5432/x",
    "@Override public void run() {}",
    "关注微博@小明的日常生活",
    "follow @some_handle.bsky.social",
    "version 1.2.3.4 and v10.11.12.13",
    "Chrome/120.0.6099.109 Safari/537.36",
    "版本号：10.15.127.208",
    "驱动 31.0.101.2125",
    "第1.2.3.4节",
    "1.1.1.1 概述\n1.1.1.2 背景",
    "囊肿5.64.52.9",
    "192.168.1.1 and 10.0.0.254 and 172.16.31.7",
    "listen on 0.0.0.0:8080 or 127.0.0.1",
    "255.255.255.0",
    "nameserver 8.8.8.8 or 114.114.114.114",
    "203.0.113.77 and 198.51.100.23",
    "999.888.777.666",
    "fe80::1ff:fe23:4567:890a, ::1, 2001:db8::8a2e:370:7334",
    "std::vector<int>::iterator a::b::c",
    "12:30:45:00:11:22",
    "00:1A:2B:3C:4D:5E",
    "从 08:15:30 到 09:45:10，再到 2001:02:03",
    "Call (555) 123-4567 or 123-456-7890.",
    "555-555-5555, (212) 555-0134, +1 415-555-2671",
    "1-800-433-7300",
    "客服热线400-810-8888，投诉请拨12315",
    "拨打110、120、119或10086",
    "95588",
    "4111 1111 1111 1111 and 4242424242424242",
    "378282246310005",
    "4539577636281016 fails the check",
    "0000 0000 0000 0000",
    "1234 5678 9012 3456",
    "1111222233334444",
    "110105194912310021 has a wrong check digit",
    "000000194912310021",
    "44030119850732103X",
    "440301850712103",
    "860123456789012 (IMEI)",
    "b = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]",
    "1 2 3 4 5 6 7 8 9 10 11 12",
    "x = 622 + 848 - 6222021 * 100",
    "2^31 - 1 = 2147483647; 2^63 = 9223372036854775808",
    "6.02214076e23, 1.602176634e-19, 299792458 m/s",
    "1e+10000000000 f(x)+1234567890",
    "1383 0551 6332 9046 and 3 199 6528 6376 6963 440",
    "2010-2015 2016-2020 2021-2025",
    "1990 1995 2000 2005 2010",
    "010-2020 届，021 班",
    "GB/T 7714-2015, ISO 8601-1:2019",
    "doi:10.1145/3397271.3401075",
    "10.1000/182.13712345608",
    "arXiv:2005.14165v4",
    "CVE-2021-44228, RFC 2606",
    "QQ: 3309187721",
    "学号20211234567，班级0312",
    "#13712345608 SKU-13712345608",
    "sk-learn and sk-xxxxxxxxxxxxxxxxxxxxxxxx",
    "sk-your-api-key-here-0123456789",
    "the task-force-on-international-development",
    "hf_hub_download, hf_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
    "AKIA" + "IOSFODNN7EXAMPLE",
    "Authorization: Bearer YOUR_ACCESS_TOKEN_GOES_HERE1",
    "bearer responsibilities-and-obligations",
    "-----BEGIN " + "PRIVATE KEY-----\n...\n-----END " + "PRIVATE KEY-----",
    "-----BEGIN CERTIFICATE-----\n" + RANDOM * 3 + "\n-----END CERTIFICATE-----",
    "eyJ is how base64 of JSON begins",
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJ",
]


def canonical(messages: list[Message]) -> bytes:
    return orjson.dumps((messages, None))


def clean(mode: str, messages: list[Message]) -> Cleaned | None:
    step = make_personal(mode)
    assert step is not None
    return step(messages, canonical(messages))


@pytest.mark.parametrize(("kind", "text", "datum"), POSITIVE)
def test_what_is_personal_is_found(kind: str, text: str, datum: str) -> None:
    assert [(found.kind, text[found.start : found.stop]) for found in find_personal(text)] == [(kind, datum)]
    assert kind in suspected_kinds(canonical([("user", text)]))


@pytest.mark.parametrize("text", NEGATIVE)
def test_what_only_looks_like_it_is_not(text: str) -> None:
    assert [(found.kind, text[found.start : found.stop]) for found in find_personal(text)] == []


def test_text_without_such_things_is_not_looked_at() -> None:
    for text in (
        "How do I cook rice? 1. Rinse it. 2. Add 300 ml of water.\n3. Simmer.",
        "晚上少看手机，每天7点起床，2024年也一样。",
    ):
        assert suspected_kinds(canonical([("user", text)])) == frozenset()


def test_redact_puts_marks_and_counts_each_kind() -> None:
    asked = ("user", "我是zhang.wei88@163.com，手机13712345608，也可打186-2304-9917。")
    told = rich_message("assistant", "好的。", reasoning="身份证11010519491231002X，来自47.93.201.18")
    assert clean("redact", [asked, told]) == Cleaned(
        messages=[
            ("user", "我是[EMAIL]，手机[PHONE]，也可打[PHONE]。"),
            ("assistant", "好的。", "身份证[CN_ID]，来自[IP]"),
        ],
        changed=("pii-email", "pii-id", "pii-phone", "pii-ip"),
    )


def test_redact_keeps_the_other_fields_of_a_message() -> None:
    output = rich_message("tool", "6214831209876504", name="lookup", tool_call_id="c1")
    answer = rich_message("assistant", "sk-" + RANDOM, train=False)
    cleaned = clean("redact", [output, answer])
    assert cleaned is not None and cleaned.messages == [
        rich_message("tool", "[BANK_CARD]", name="lookup", tool_call_id="c1"),
        rich_message("assistant", "[KEY]", train=False),
    ]


def test_redact_changes_string_values_of_arguments_and_nothing_else_in_them() -> None:
    arguments = (
        '{ "to" :"a.berg@posteo.de", "cc": ["li.na@foxmail.com",  1.50e3], "note": "\\u4f60\\n\\ud83d\\ude00 '
        'tel \\"13712345608\\" \\/", "a.berg@posteo.de": null}'
    )
    call = ("c1", "send", arguments)
    cleaned = clean("redact", [("user", "Go."), rich_message("assistant", "", tool_calls=(call,))])
    assert cleaned is not None
    assert cleaned.messages[1][3] == (
        (
            "c1",
            "send",
            '{ "to" :"[EMAIL]", "cc": ["[EMAIL]",  1.50e3], "note": "\\u4f60\\n\\ud83d\\ude00 '
            'tel \\"[PHONE]\\" \\/", "a.berg@posteo.de": null}',
        ),
    )
    assert json.loads(cleaned.messages[1][3][0][2])["note"] == '你\n😀 tel "[PHONE]" /'
    assert cleaned.changed == ("pii-email", "pii-phone")
    assert cleaned.seen == ("pii-email",)  # the name


PARTS = st.sampled_from(
    ["a.berg@posteo.de", "13712345608", "47.93.201.18", ' "', "\\", "\n", "/", "你好", "😀", "é", " x "]
)
TEXTS = st.lists(PARTS, max_size=5).map(" ".join)
VALUES = st.recursive(
    TEXTS | st.integers(-9, 9) | st.booleans() | st.none() | st.floats(-1, 1),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["to", 'q"', "x:"]), inner, max_size=3),
    max_leaves=8,
)


def with_marks(value: Any) -> Any:
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, list):
        return [with_marks(one) for one in value]
    return {name: with_marks(one) for name, one in value.items()} if isinstance(value, dict) else value


def redacted(text: str) -> str:
    cleaned = clean("redact", [("user", text)])
    return text if cleaned is None else cleaned.messages[0][1]


@settings(max_examples=100, deadline=None)
@given(value=st.fixed_dictionaries({"value": VALUES}), ascii_only=st.booleans(), indent=st.sampled_from([None, 2]))
def test_arguments_stay_json_with_their_strings_redacted(value: Any, ascii_only: bool, indent: int | None) -> None:
    arguments = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    call = ("c1", "send", arguments)
    cleaned = clean(
        "redact", [rich_message("assistant", "a.berg@posteo.de 13712345608 47.93.201.18", tool_calls=(call,))]
    )
    assert cleaned is not None
    changed = cleaned.messages[0][3][0][2]
    assert json.loads(changed) == with_marks(value)
    if with_marks(value) == value:
        assert changed == arguments


def test_a_number_in_arguments_is_left_and_counted() -> None:
    call = ("c1", "call", '{"phone": 13712345608, "order_id": 13712345608}')
    messages = [("user", "Call."), rich_message("assistant", "", tool_calls=(call,))]
    assert clean("redact", messages) == Cleaned(messages=messages, seen=("pii-phone",))
    with pytest.raises(TurnedAway):
        clean("drop", messages)


def test_count_changes_nothing() -> None:
    messages: list[Message] = [("user", "Mail a.berg@posteo.de"), ("assistant", "47.93.201.18")]
    cleaned = clean("count", messages)
    assert cleaned == Cleaned(messages=messages, seen=("pii-email", "pii-ip"))
    assert cleaned.messages is messages


def test_drop_names_kinds_and_messages_and_never_what_was_found() -> None:
    messages: list[Message] = [("user", "Hi"), ("assistant", "a.berg@posteo.de, 13712345608"), ("user", "47.93.201.18")]
    with pytest.raises(TurnedAway) as caught:
        clean("drop", messages)
    assert caught.value.reason == "personal-data" and caught.value.fix == FIXES["personal-data"]
    assert caught.value.detail == "message 2 has an e-mail address, a phone number; message 3 has an IP address"
    with pytest.raises(TurnedAway) as caught:
        clean("drop", [("user", "a.berg@posteo.de")] * 6)
    assert caught.value.detail.endswith("message 3 has an e-mail address and 3 more messages")


@pytest.mark.parametrize("mode", ["count", "redact", "drop"])
def test_where_nothing_is_found_nothing_is_given(mode: str) -> None:
    assert clean(mode, [("user", "How do I cook rice?"), ("assistant", "Rinse it.")]) is None
    assert clean(mode, [("user", "订单号13812345678，发到user@example.com"), ("assistant", "1.2.3.4")]) is None


def test_redacting_what_was_redacted_changes_nothing() -> None:
    for kind, text, _ in POSITIVE:
        cleaned = clean("redact", [("user", text)])
        assert cleaned is not None and cleaned.changed == (STEPS[kind],)
        assert clean("redact", cleaned.messages) is None


def test_off_is_no_step() -> None:
    assert make_personal("off") is None


def test_missing_libraries_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    known = personal.find_spec

    def without_stdnum(name: str) -> ModuleSpec | None:
        return None if name == "stdnum" else known(name)

    monkeypatch.setattr(personal, "find_spec", without_stdnum)
    with pytest.raises(InputError, match=r"--pii drop needs .*: pip install 'sftpack\[pii\]'"):
        make_personal("drop")
    assert make_personal("off") is None


def test_the_libraries_load_where_something_is_found_only() -> None:
    import subprocess

    program = (
        "import sys; from dataprep.stages.clean.personal import make_personal; make_personal('drop')([('user','Hi')], "
        "b'[[[\"user\",\"Hi\"]],null]'); print('phonenumbers' in sys.modules, 'stdnum' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False False\n"
