"""Ids that are signed addresses: the place of a record in its stream, and proof that we made it.

37 bytes, base64url without padding, 50 characters:

    key id 1 | model hash 4 | shard 2 | milliseconds 6 | sequence 4 | nonce 4 | HMAC-SHA256 16

Milliseconds and sequence are Redis's own entry id, so a join needs no index. The nonce is also in
the record: an address that is used again after a loss of data cannot join the wrong record. A
forged or foreign id is refused without touching the store.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import hmac
import os
import secrets
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from online_learner import secret
from online_learner.errors import ConfigError, NotFound, WindowClosed

Kind = Literal["prediction", "feedback"]

LATE = 1  # the shard in the id of what was said after the window: it is in a stream of its own

_HEAD = struct.Struct(">B4sH6sI4s")
_MAC_BYTES = 16
_TEXT_LENGTH = 50


@dataclass(frozen=True, slots=True)
class Address:
    """Where a record is: a stream entry of one model."""

    ms: int
    seq: int
    nonce: str
    shard: int = 0

    @property
    def entry(self) -> str:
        """The entry id as Redis writes it.

        >>> Address(1700000000000, 3, "00ff00ff").entry
        '1700000000000-3'
        """
        return f"{self.ms}-{self.seq}"


def entry_order(entry: str) -> tuple[int, int]:
    """Return a stream entry id as numbers that sort as the stream does."""
    ms, _, seq = entry.partition("-")
    return int(ms), int(seq or 0)


@functools.lru_cache(maxsize=4096)
def model_hash(model: str) -> bytes:
    """Return the 4 bytes that stand for a model in an id."""
    return hashlib.sha256(model.encode()).digest()[:4]


def new_nonce() -> str:
    """Return 4 random bytes in hex."""
    return os.urandom(4).hex()


class Keyring:
    """Signs and opens ids. Holds up to two live keys, so that keys can be rotated.

    Parameters
    ----------
    keys
        Secrets of at least 16 bytes by key id (0 to 255). The highest id signs; all of them verify.
    """

    def __init__(self, keys: dict[int, bytes]) -> None:
        if not keys or any(len(key) < 16 or not 0 <= i <= 255 for i, key in keys.items()):
            raise ConfigError("signing keys need an id from 0 to 255 and at least 16 bytes each")
        self._keys = dict(keys)
        self._current = max(keys)

    @classmethod
    def load(cls, data_dir: Path) -> Keyring:
        """Read the keys from `OL_SECRET` (`id:hex` pairs, comma separated) or `data_dir/secret`.

        The variable `OL_SECRET_FILE` may name another file. `data_dir/secret` is made, readable by
        its owner only, where none of them exists.
        """
        text = secret.from_environment("OL_SECRET") or secret.read_or_create(
            data_dir / "secret", _new_secret
        )
        try:
            pairs = [part.strip().split(":", 1) for part in text.split(",")]
            return cls({int(key_id): bytes.fromhex(key) for key_id, key in pairs})
        except ValueError:
            raise ConfigError(
                "the signing secret is not of the form 'id:hex[,id:hex]'. Set OL_SECRET to, say, "
                f"1:$(openssl rand -hex 32), or remove {data_dir / 'secret'} to have one made."
            ) from None

    def mac(self, purpose: str, *parts: bytes, key_id: int | None = None) -> bytes:
        """Return HMAC-SHA256 over `purpose` and `parts`, each preceded by its length."""
        message = b"".join(struct.pack(">I", len(p)) + p for p in (purpose.encode(), *parts))
        key = self._keys[self._current if key_id is None else key_id]
        return hmac.digest(key, message, "sha256")

    def pseudonym(self, *parts: bytes) -> bytes:
        """Return 8 bytes that stand for `parts`, for as long as the oldest key is kept."""
        return self.mac("pseudonym", *parts, key_id=min(self._keys))[:8]

    def verify(self, tag: bytes, purpose: str, *parts: bytes) -> bool:
        """Tell whether `tag` is ours, under any live key."""
        return any(
            hmac.compare_digest(tag, self.mac(purpose, *parts, key_id=i)) for i in self._keys
        )

    def seal(self, kind: Kind, model: str, address: Address) -> str:
        """Return the signed id of an entry."""
        head = _HEAD.pack(
            self._current,
            model_hash(model),
            address.shard,
            address.ms.to_bytes(6, "big"),
            address.seq,
            bytes.fromhex(address.nonce),
        )
        tag = hmac.digest(self._keys[self._current], kind.encode() + head, "sha256")[:_MAC_BYTES]
        return base64.urlsafe_b64encode(head + tag).decode().rstrip("=")

    def open(self, kind: Kind, text: str) -> tuple[bytes, Address]:
        """Return the model's hash and the address, or raise `NotFound` where the id is not ours."""
        head, tag = _split(text)
        if head is not None and head[0] in self._keys:
            want = hmac.digest(self._keys[head[0]], kind.encode() + head, "sha256")[:_MAC_BYTES]
            if hmac.compare_digest(tag, want):
                _, model, shard, ms, seq, nonce = _HEAD.unpack(head)
                return model, Address(int.from_bytes(ms, "big"), seq, nonce.hex(), shard)
        raise NotFound(
            f"this {kind}_id was not issued here, or was changed on its way. Send the id exactly "
            "as it was returned.",
            code=f"unknown_{kind}",
        )


def check_age(address: Address, *, now: float, window_s: float) -> None:
    """Raise `WindowClosed` where the entry is older than the feedback window, in seconds."""
    age_s = now - address.ms / 1000
    if age_s > window_s:
        raise WindowClosed(
            f"feedback is taken for {window_s:g} s after a prediction; this one is {age_s:.0f} s "
            "old. Predict again, or raise window_s."
        )


def _split(text: str) -> tuple[bytes | None, bytes]:
    if len(text) != _TEXT_LENGTH or not text.isascii():
        return None, b""
    try:
        raw = base64.b64decode(text + "==", altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None, b""
    # 50 characters carry 300 bits for 296: the four spare bits must be zero, else two texts
    # would stand for one id.
    if base64.urlsafe_b64encode(raw).decode().rstrip("=") != text:
        return None, b""
    return raw[: _HEAD.size], raw[_HEAD.size :]


def _new_secret() -> str:
    return f"1:{secrets.token_hex(32)}"
