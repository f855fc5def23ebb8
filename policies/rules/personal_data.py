"""Personal data in text: which kinds of it a text holds, never what it is.

The patterns are strict: a date, an amount, a version or a long order number is not taken for a
telephone number. What has a check digit is checked. Time is linear in the length of the text,
whatever the text is.

A telephone number is one of
- international: `+` or `00`, then 8 to 15 digits;
- national with a trunk zero, in the groupings of Europe, Africa, Asia and Australia;
- North American: `(212) 555-0123` or `212-555-0123`.

Local numbers, and numbers without a trunk zero that are written in one piece, cannot be told from
order numbers, and are not found.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, TypeAlias

Kind: TypeAlias = Literal["email", "phone", "card", "iban", "ip"]

_SHORTEST = 6  # a@b.eu

# --- text as it is searched -------------------------------------------------------------------

# The standard library's NFKC is quadratic in a run of combining marks: 64,000 take two seconds.
_PIECES = re.compile(r".{1,512}(?:\s|$)|.{1,512}", re.DOTALL)
_ZEROS = (0x0660, 0x06F0, 0x0966, 0x09E6, 0x0E50)  # Arabic, Persian, Devanagari, Bengali, Thai
_DASHES = (*range(0x2010, 0x2016), 0x207B, 0x208B, 0x2212, 0xFE31, 0xFE32, 0xFE58)
_INVISIBLE = (0x00AD, *range(0x200B, 0x2010), 0x2060, 0xFEFF)
_TABLE: dict[int, str | None] = {
    **{zero + digit: str(digit) for zero in _ZEROS for digit in range(10)},
    **dict.fromkeys(_DASHES, "-"),
    **dict.fromkeys(_INVISIBLE),
}


def plain(text: str) -> str:
    """Return a text in NFKC, with ASCII digits and hyphens and without invisible characters.

    >>> plain("\uff14\uff12\u2011\u0663\u00ad")
    '42-3'
    """
    if text.isascii():
        return text
    pieces = _PIECES.findall(text.translate(_TABLE))
    return "".join(unicodedata.normalize("NFKC", piece) for piece in pieces)


# --- the kinds --------------------------------------------------------------------------------

# Neither icon@2x.png, nor a mention (@name), nor a package with its version (tool@1.2.3).
_EMAIL = re.compile(
    r"(?<=[\w+-])@(?!\dx\.)(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,63}",
)

_PHONE = re.compile(
    r"""
    (?<! [\w\#+] ) (?<! \w[./-] ) (?<! \d, ) (?:          # not inside a number, a word or a URL
      (?! \+ \d+ (?: [ ]\d{3} )* \.\d+ (?![\d ./()-]) )   # a signed decimal
      \+ [1-9] (?: [ ().\-/]{0,2} \d ){7,14}              # +44 20 7946 0958
    | (?<! \d{4}[ ] ) (?:                                 # nor the last groups of a long number
        00 [ ]? [1-9] (?: [ ().\-/]{0,2} \d ){9,14}       # 0044 20 7946 0958
      | 0[1-9] \d{8,9} (?! \.\d )                         # 02079460958
      | 0[1-9] (?P<gap>[ .-]) \d\d (?: (?P=gap)\d\d ){3} (?! [.-]\d )  # 01 23 45 67 89
      | 0[1-9] [ -] (?: \d{8} | \d{4}[ -]\d{4} )          # 02 9876 5432
      | (?: 0[1-9]\d{1,3} | \(0\d{1,4}\) ) [ /-]{1,2}     # 020 7946 0958, (0151) 123456
        \d (?: [ /-]? \d ){5,7} (?! [/-]\d )
      | (?: 1[ .-] )? \( [2-9]\d\d \) [ ]? \d{3} [ .-] \d{4}  # (212) 555-0123
      | (?: 1- )? [2-9]\d\d -\d{3}- \d{4}                 # 212-555-0123
      | (?: 1[ .] )? [2-9]\d\d (?P<sep>[ .]) [2-9]\d\d (?P=sep) \d{4}  # 212.555.0123
      )
    ) (?! \w | -\d | ,\d\d?\b )
    """,
    re.VERBOSE | re.ASCII,
)

# A look-ahead consumes nothing, so that a number before a card number does not hide it.
_CARD = re.compile(
    r"""
    (?<! \w ) (?<! \d[.,] ) (?= (?:
      (?P<whole> \d{13,19} )
    | (?P<fours> \d{4} (?P<gap>[ -]) \d{4} (?P=gap) \d{4} (?P=gap) \d{4} )
      (?P<rest> (?P=gap)\d{3} )?                              # of a longer number, or the CVC
    | (?P<six> \d{4} (?P<space>[ -]) \d{6} (?P=space) \d{4,5} )
    ) (?! \w | \.\d ) )
    """,
    re.VERBOSE | re.ASCII,
)
# Issuers' first digits and lengths (ISO/IEC 7812): one in four random numbers of 16 digits.
_ISSUERS = re.compile(
    r"4\d{12}|4\d{15}|4\d{18}"  # Visa
    r"|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}"  # Mastercard
    r"|3[47]\d{13}"  # American Express
    r"|3(?:0[0-5]|[689]\d)\d{11}"  # Diners Club
    r"|35(?:2[89]|[3-8]\d)\d{12,15}"  # JCB
    r"|(?:6011|64[4-9]\d|65\d\d)\d{12,15}"  # Discover
    r"|62\d{14,17}"  # UnionPay
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{9,15}"  # Maestro
)

_IBAN = re.compile(r"(?<!\w)([A-Z]{2})\d\d(?=[ -]?[A-Z0-9])", re.IGNORECASE | re.ASCII)
# Country and length, from the IBAN registry of SWIFT (ISO 13616).
_IBAN_LENGTHS = {
    country: int(length)
    for country, length in re.findall(
        "([A-Z]{2})([0-9]{2})",
        "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 "
        "DK18 DO28 EE20 EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 "
        "IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 "
        "MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 "
        "SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30",
    )
}
_IBAN_BODIES = {
    length: re.compile(rf"(?:[ -]?[A-Z0-9]){{{length}}}(?!\w)", re.IGNORECASE | re.ASCII)
    for length in set(_IBAN_LENGTHS.values())
}

_IPV4 = re.compile(
    r"(?<![\w.])(?<!version )(?<!Version )\d{1,3}(?:\.\d{1,3}){3}(?!\.?\w)", re.ASCII
)
# Addresses in use begin with a full group (2001:, fe80:): C++ names and times of day do not.
_IPV6 = re.compile(r"(?<![\w:.])[0-9a-f]{3,4}:[0-9a-f:]{2,35}(?![\w:])", re.IGNORECASE | re.ASCII)

_MANY_DIGITS = re.compile(r"(?:[^0-9]*+[0-9]){8}")


def has_email(text: str) -> bool:
    """Tell whether there is an address of the form `name@host.domain`."""
    return "@" in text and _EMAIL.search(text) is not None


def has_phone(text: str) -> bool:
    """Tell whether there is a telephone number, in one of the forms named above."""
    return _MANY_DIGITS.match(text) is not None and _PHONE.search(text) is not None


def has_card(text: str) -> bool:
    """Tell whether there is a payment card's number: known issuer, right length, Luhn's digit."""
    if _MANY_DIGITS.match(text) is None:
        return False
    return any(map(_is_card, _card_numbers(text)))


def _card_numbers(text: str) -> Iterator[str]:
    for match in _CARD.finditer(text):
        number = match["whole"] or match["fours"] or match["six"]
        yield number
        if match["rest"]:
            yield number + match["rest"]


def _is_card(number: str) -> bool:
    digits = re.sub("[ -]", "", number)
    return _ISSUERS.fullmatch(digits) is not None and luhn(digits)


def has_iban(text: str) -> bool:
    """Tell whether there is an IBAN: known country, its length, the right check digits."""
    for start in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(start[1].upper())
        body = length and _IBAN_BODIES[length].match(text, start.start())
        if body and mod97(re.sub("[ -]", "", body[0])) == 1:
            return True
    return False


def has_ip(text: str) -> bool:
    """Tell whether there is an IPv4 or IPv6 address other than loopback and `0.0.0.0`."""
    found: list[str] = []
    if text.count(".") >= 3:
        found += _IPV4.findall(text)
    if text.count(":") >= 2:
        found += _IPV6.findall(text)
    return any(map(_is_address, found))


def _is_address(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (address.is_loopback or address.is_unspecified)


def luhn(digits: str) -> bool:
    """Tell whether the last digit is the check digit of the others (ISO/IEC 7812-1, annex B).

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def mod97(iban: str) -> int:
    """Return the remainder that is 1 for a right IBAN (ISO 7064, MOD 97-10).

    >>> mod97("GB82WEST12345698765432")
    1
    """
    return int("".join(str(int(character, 36)) for character in iban[4:] + iban[:4])) % 97


FINDERS: dict[Kind, Callable[[str], bool]] = {
    "email": has_email,
    "phone": has_phone,
    "card": has_card,
    "iban": has_iban,
    "ip": has_ip,
}
KINDS: tuple[Kind, ...] = tuple(FINDERS)
_A_DIGIT_OR_AT = re.compile("[0-9@]")


def kinds_in(text: str, kinds: Iterable[Kind] = KINDS) -> list[Kind]:
    """Return which of the kinds of personal data a text holds.

    >>> kinds_in("Mail ada@example.org, or call +44 20 7946 0958.")
    ['email', 'phone']
    >>> kinds_in("Order 4711-0815 of 2024-05-12 came to 1,299.00.")
    []
    """
    text = plain(text)
    if len(text) < _SHORTEST or _A_DIGIT_OR_AT.search(text) is None:
        return []
    return [kind for kind in kinds if FINDERS[kind](text)]
