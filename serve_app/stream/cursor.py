"""How far a listener has heard: one place in each of a model's streams, as one opaque word.

The places are entry ids, so they are times, and they are good on every replica and after a restart.
A cursor of a release that knew fewer kinds is good, too: of the others, its bearer has heard as
much as of that kind of which it had heard most.
"""

from __future__ import annotations

import base64
import binascii
import struct
from typing import TypeAlias

from online_learner.errors import Invalid
from online_learner.ids import entry_order

KINDS = ("metrics", "feedback", "verdict", "swap", "alarm", "quality")  # further ones come last
FORM = "^([A-Za-z0-9_-]{86}|[A-Za-z0-9_-]{128})$"

Place: TypeAlias = tuple[int, int]  # milliseconds and sequence number, as in an entry's id
Cursor: TypeAlias = dict[str, Place]  # by kind of event

_PLACE = struct.Struct(">QQ")
_COUNTS = {4, len(KINDS)}  # of the places in a cursor of this release, and of those before
_LAST = (1 << 64) - 1


def place_of(entry: str) -> Place:
    """Return an entry's id as numbers."""
    return entry_order(entry)


def entry_of(place: Place) -> str:
    """Return a place as the store writes it.

    >>> entry_of(place_of("1700000000000-3"))
    '1700000000000-3'
    """
    return f"{place[0]}-{place[1]}"


def before(place: Place) -> Place:
    """Return the place right before another.

    >>> before((7, 1)), before((7, 0))[0]
    ((7, 0), 6)
    """
    ms, seq = place
    if seq or not ms:
        return ms, max(0, seq - 1)
    return ms - 1, _LAST


def at_moment(ms: int) -> Cursor:
    """Return the cursor of who has heard all until right before a moment."""
    return dict.fromkeys(KINDS, before((ms, 0)))


def pack(cursor: Cursor) -> str:
    """Return a cursor as a word.

    >>> unpack(pack(at_moment(1700000000000))) == at_moment(1700000000000)
    True
    """
    places = b"".join(_PLACE.pack(*cursor[kind]) for kind in KINDS)
    return base64.urlsafe_b64encode(places).decode().rstrip("=")


def unpack(word: str) -> Cursor:
    """Return the cursor of a word; raises `Invalid`."""
    try:
        found = list(_PLACE.iter_unpack(base64.urlsafe_b64decode(word + "==")))
    except (binascii.Error, struct.error, ValueError):
        found = []
    if len(found) not in _COUNTS:
        raise Invalid.at("/after", "is none of the ids that a stream has given")
    missing = [max(found)] * (len(KINDS) - len(found))
    return dict(zip(KINDS, [*found, *missing], strict=True))
