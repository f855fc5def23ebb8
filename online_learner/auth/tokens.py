"""The form of an API key: `ol_`, 256 random bits, and a checksum, all of it in base62.

The prefix and the checksum tell a key from other text without a lookup: scanners find one that was
published, and a mistyped one is called that.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import string
import zlib

PREFIX = "ol_"
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_BITS = 256
_RANDOM_LENGTH, _CHECK_LENGTH = 43, 6  # 62^43 > 2^256, and 62^6 > 2^32
_FORM = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_RANDOM_LENGTH + _CHECK_LENGTH}}}")


def new_key() -> str:
    """Return a fresh key; it is shown once and stored nowhere.

    >>> is_mistyped(new_key())
    False
    """
    text = _base62(secrets.randbits(_BITS), _RANDOM_LENGTH)
    return f"{PREFIX}{text}{_checksum(text)}"


def is_mistyped(text: str) -> bool:
    """Tell whether a text has the form of our keys, but not the checksum of one.

    Keys of another form, those that a team has made itself, are never mistyped.

    >>> is_mistyped("ol_" + "0" * 49), is_mistyped("hunter2")
    (True, False)
    """
    if not _FORM.fullmatch(text):
        return False
    return text[-_CHECK_LENGTH:] != _checksum(text[len(PREFIX) : -_CHECK_LENGTH])


def digest(key: str) -> str:
    """Return what is stored of a key: its SHA-256, in hex."""
    return hashlib.sha256(key.encode()).hexdigest()


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), _CHECK_LENGTH)


def _base62(number: int, length: int) -> str:
    found = ""
    for _ in range(length):
        number, place = divmod(number, len(_BASE62))
        found = _BASE62[place] + found
    return found
