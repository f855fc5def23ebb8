"""What is taken for personal data, what is not, and that no text takes long."""

from __future__ import annotations

import csv
import gzip
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from policies.rules.personal_data import FINDERS, KINDS, kinds_in, luhn, mod97, plain

DATA = Path(__file__).parent.parent.parent / "shared" / "data"

FOUND = {
    "email": [
        "ada@example.org",
        "Write to ADA.Lovelace+bills@mail.example.co.uk, please.",
        "<jörg@müller.example>",
        "我的邮箱是ada@example.com谢谢",
        "ada\uff20example\uff0ecom",
        "mailto:a_b-c@x-y.museum",
        "@home: ada@example.org",
    ],
    "phone": [
        "+44 20 7946 0958",
        "+442079460958",
        "tel:+49-151-12345678",
        "+1 (212) 555-0123",
        "+420 123 456 789.",
        "0044 20 7946 0958",
        "020 7946 0958",
        "(020) 7946 0958",
        "(0151) 123456",
        "030/1234567",
        "07911 123456",
        "07911123456",
        "01 23 45 67 89",
        "01.23.45.67.89",
        "02 9876 5432",
        "06-12345678",
        "(212) 555-0123",
        "555-123-4567",
        "1-212-555-0123",
        "212.555.0123",
        "+44 20 7946 0958 on 12/03/2024",
        "+4\u20604\u00a020\u20117946\u20110958",
        "\u0660\u0667\u0669\u0661\u0661\u0661\u0662\u0663\u0664\u0665\u0666",
    ],
    "card": [
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4111111111111111",
        "5555555555554444, 12/27",
        "2223003122003222",
        "3782 822463 10005",
        "3056 930902 5904",
        "6011111111111117",
        "3530111333300000",
        "6200 0000 0000 0005",
        "order 12 4111 1111 1111 1111",
        "2024 4111 1111 1111 1111",
        "4111 1111 1111 1111 123",
        "4111 1111 1111 1111 12/26",
    ],
    "iban": [
        "GB82 WEST 1234 5698 7654 32",
        "DE89370400440532013000",
        "de89 3704 0044 0532 0130 00",
        "IBAN: DE89 3704 0044 0532 0130 00 thanks",
        "NO93 8601 1117 947.",
        "MT84MALT011000012345MTLCAST001S",
    ],
    "ip": [
        "192.168.0.1",
        "from 203.0.113.7:8080.",
        "ip=203.0.113.7/24",
        "2001:db8::1",
        "[2001:0db8:85a3:0000:0000:8a2e:0370:7334]:443",
        "fe80::1ff:fe23:4567:890a%eth0",
        "::ffff:203.0.113.7",
    ],
}

NOT_FOUND = [
    "",
    "on 2024-05-12 at 10:30:00",
    "2024-05-12T10:30:00.123456+02:00",
    "12/05/2024, 12.05.2024, 05-12-24",
    "01-02-2024 03-04-2024",
    "01.02.2024 10.30",
    "open 0900-1700, 0830-1230 1330-1730",
    "1,234,567.89 or 1.234.567,89 or 1 234 567,89",
    "0.0123456789",
    "+1,234,567.89 and +12.5 %",
    "+1 234 567.89",
    "+48.85661400, +2.35222190",
    "+12.345.678,90",
    "order 4711-0815-2342",
    "order #01234567890",
    "https://example.org/item/01234567890",
    "INV-0123456789",
    "112-1234567-1234567",
    "tracking id 00340434161094042557",
    "4111111111111112",
    "9111111111111111 1234567890123452",
    "41111111111111111111",
    "0.4111111111111111",
    "id4111111111111111",
    "ISBN 978-0-306-40615-7",
    "timestamp 1715509800000",
    "41111111-1111-1111-1111-111111111111",
    "version 10.0.1.2, v1.2.3.4",
    "OID 1.3.6.1.4.1.311.21",
    "999.1.1.1 and 1.2.3",
    "127.0.0.1, 0.0.0.0, ::1, ::",
    "std::vector<int> dead::beef Ada::Bee",
    "00:1A:2B:3C:4D:5E at 12:30:45",
    "logo@2x.png for @ada, meet me @cafe.berlin",
    "react@18.2.0 at root@localhost",
    "GB82 WEST 1234 5698 7654 33",
    "XX82 WEST 1234 5698 7654 32",
    "3.14159265358979 and 2.718281828459045",
    "1 2 3 4 5 6 7 8 9 10 11 12",
    "100.200.3000 and 300 100 5000",
]


@pytest.mark.parametrize(
    ("kind", "text"), [(kind, text) for kind, texts in FOUND.items() for text in texts]
)
def test_what_is_found(kind: str, text: str) -> None:
    """Each kind is found in the forms that people write, and taken for no other kind."""
    assert kinds_in(text) == [kind]
    assert kinds_in(f"Hello, {text} (bye)") == [kind]


@pytest.mark.parametrize("text", NOT_FOUND)
def test_what_is_not_found(text: str) -> None:
    """Dates, amounts, versions, order numbers, long ids and code are not personal data."""
    assert kinds_in(text) == []


def test_only_the_kinds_asked_for() -> None:
    """Kinds come in the order asked for, and no others."""
    text = "ada@example.org 020 7946 0958 4111111111111111 203.0.113.7 DE89370400440532013000"
    assert kinds_in(text) == list(KINDS)
    assert kinds_in(text, ["ip", "email"]) == ["ip", "email"]
    assert kinds_in(text, []) == []


@given(st.text("0123456789", min_size=12, max_size=18), st.integers(0, 17), st.integers(1, 9))
def test_luhn_finds_each_wrong_digit(digits: str, place: int, off: int) -> None:
    """Of ten check digits one is right, and a single wrong digit is always found."""
    right = [digits + check for check in "0123456789" if luhn(digits + check)]
    assert len(right) == 1
    i = place % len(digits)
    wrong = f"{digits[:i]}{(int(digits[i]) + off) % 10}{digits[i + 1 :]}{right[0][-1]}"
    assert not luhn(wrong)


@given(st.text("0123456789", min_size=18, max_size=18))
def test_iban_needs_its_check_digits(account: str) -> None:
    """Of a German account's check digits only those of the norm make an IBAN."""
    check = 98 - mod97(f"DE00{account}")
    assert kinds_in(f"DE{check:02}{account}", ["iban"]) == ["iban"]
    assert kinds_in(f"DE{check % 97 + 1:02}{account}", ["iban"]) == []


def test_random_ids_are_seldom_cards() -> None:
    """Of random numbers of 16 digits less than one in twenty has an issuer and Luhn's digit."""
    rng = random.Random(0)
    found = sum(bool(kinds_in(f"id {rng.randrange(10**15, 10**16)}")) for _ in range(4000))
    assert 0 < found < 200


@given(st.text())
@example("\u0315\u0300" * 1000)
def test_plain_is_plain(text: str) -> None:
    """Making a text plain twice changes nothing more, and ASCII stays as it is."""
    once = plain(text)
    assert plain(once) == once or len(text) > 512
    if text.isascii():
        assert once == text


@given(st.text(max_size=200))
@example("+1" + "(" * 50)
@example("@" * 50 + ".1.1.1.1::" + "9" * 50)
def test_any_text_is_taken(text: str) -> None:
    """No text raises, and the kinds come in order and once each."""
    found = kinds_in(text)
    assert found == [kind for kind in KINDS if kind in found]


# --- how long it takes ------------------------------------------------------------------------

HOSTILE = [
    *("a", "@", "1", "0", "+", "(", ":", "1 ", "1-", "01 ", "+1 ", "00 1 ", "0 ", "a-"),
    *("a@", "a@a.", "@a.a-", "x@a-", "é@é.", "4111 ", "4111-1111-", "1234 123456 ", "0800 "),
    *("(0800) ", "0151/", "212-555-", "1 (212) ", "+1()()", "DE89", "DE89 ", "DE89 1"),
    *("DE89 3704 0044 0532 0130 0", "1.", "1.1.1.1.", "255.", "a:", "abcd:", "2001:db8:"),
    *("9" * 18 + " ", "\u0315\u0300", "\ufdfa", "1\u0301 ", "\u00ad1", "\ud800"),
]


MAIL = (
    "Dear customer, your order 8837261 of 2024-05-12 came to 1,299.00 and is delivered on "
    "03.06.2024 between 10:00 and 12:30; keep the id 00340434161094042557 at hand. Thanks!"
)


def cpu_s(work: Callable[[], object]) -> float:
    """Return the processor time of the quickest of three runs, in seconds."""
    taken = []
    for _ in range(3):
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


@pytest.mark.parametrize("part", HOSTILE, ids=ascii)
@pytest.mark.parametrize("frame", ["{}", "1111111111@{}!", "{}@1.1.1"])
def test_hostile_texts_take_linear_time(part: str, frame: str) -> None:
    """64 kB made to send a pattern astray take 4 times a quarter, and some tens of times a mail."""

    def taken(text: str) -> float:
        return cpu_s(lambda: [find(plain(text)) for find in FINDERS.values()])

    whole, quarter = (taken(frame.format(part * (size // len(part)))) for size in (65_536, 16_384))
    assert whole < 6 * quarter + 0.01
    assert whole < 100 * taken(MAIL * (65_536 // len(MAIL)))


def test_ordinary_texts_take_microseconds() -> None:
    """A text of 200 characters with numbers in it takes less than half a millisecond."""
    assert cpu_s(lambda: [kinds_in(MAIL) for _ in range(200)]) / 200 < 500e-6


# --- real texts -------------------------------------------------------------------------------


@pytest.mark.skipif(not (DATA / "sms_spam").exists(), reason="../shared/data/sms_spam is absent")
def test_sms() -> None:
    """In 5,574 real messages only spam and two friends give numbers and addresses."""
    with gzip.open(DATA / "sms_spam" / "sms.tsv.gz", "rt", encoding="utf-8") as file:
        rows = [line.rstrip("\n").split("\t", 1) for line in file]
    found = [(label, kind) for label, text in rows for kind in kinds_in(text)]
    assert {kind for _, kind in found} == {"email", "phone"}
    assert found.count(("spam", "phone")) >= 380
    assert sum(label == "ham" for label, _ in found) <= 3


@pytest.mark.skipif(not (DATA / "banking77").exists(), reason="../shared/data/banking77 is absent")
def test_banking77() -> None:
    """In 13,083 questions to a bank, which hold none, none is found."""
    for name in ("train", "test"):
        with gzip.open(DATA / "banking77" / f"{name}.csv.gz", "rt", encoding="utf-8") as file:
            texts = [row[0] for row in csv.reader(file)]
        assert len(texts) > 3000
        assert [text for text in texts if kinds_in(text)] == []
