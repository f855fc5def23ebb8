"""The door of the console: a key, once, for a cookie that no script of a page can read.

The cookie is a sealed note: the digest of the key, when it ends, and a nonce. Nothing is kept on
the server, and the key behind it is looked up on each request: where that is revoked or expires,
the session ends. What changes something needs a token beside the cookie, which another site's page
cannot know.
"""

from __future__ import annotations

import base64
import binascii
import secrets
import struct
from dataclasses import dataclass

from starlette.requests import Request

from online_learner.auth import Credential, Keychain
from online_learner.errors import Forbidden, Unauthorized
from online_learner.ids import Keyring

COOKIE = "ol_session"
TOKEN_HEADER = "x-csrf-token"  # noqa: S105
LASTS_S = 8 * 3600
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_NOTE = struct.Struct(">32sQ16s")  # digest of the key, seconds since the epoch, nonce
_ENDED = (
    "the session has ended: send a key to POST /v1/session, or as 'Authorization: Bearer ol_...'"
)
_NO_TOKEN = (
    f"by cookie, this needs the header '{TOKEN_HEADER}' with the csrf_token that GET /v1/session "
    "returns"
)


@dataclass(frozen=True, slots=True)
class Session:
    """What a cookie says."""

    note: bytes

    @classmethod
    def begin(cls, credential: Credential, *, now: float) -> Session:
        """Return a new session for a key; it ends when the key does, at the latest."""
        ends_at = min(now + LASTS_S, credential.expires_at or float("inf"))
        digest = bytes.fromhex(credential.digest)
        return cls(_NOTE.pack(digest, int(ends_at), secrets.token_bytes(16)))

    @classmethod
    def unseal(cls, keyring: Keyring, text: str, *, now: float) -> Session:
        """Return the session of a cookie; raises `Unauthorized` where it is not ours, or ended."""
        try:
            raw = base64.b64decode(text + "==", altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise Unauthorized(_ENDED) from None
        session, tag = cls(raw[: _NOTE.size]), raw[_NOTE.size :]
        if not keyring.verify(tag, "session", session.note) or session.ends_at <= now:
            raise Unauthorized(_ENDED)
        return session

    def seal(self, keyring: Keyring) -> str:
        """Return the cookie."""
        sealed = self.note + keyring.mac("session", self.note)
        return base64.urlsafe_b64encode(sealed).decode().rstrip("=")

    def token(self, keyring: Keyring) -> str:
        """Return what has to stand beside the cookie where something is changed."""
        return keyring.mac("csrf", self.note).hex()

    def has_token(self, keyring: Keyring, text: str) -> bool:
        """Tell, in constant time, whether a token is that of this session."""
        try:
            return keyring.verify(bytes.fromhex(text), "csrf", self.note)
        except ValueError:
            return False

    @property
    def digest(self) -> str:
        """The digest of the key."""
        return self.note[:32].hex()

    @property
    def ends_at(self) -> int:
        """When it ends, in seconds since the epoch."""
        return int(_NOTE.unpack(self.note)[1])


def is_named(request: Request) -> bool:
    """Tell whether a request brings a cookie of ours."""
    return "cookie" in request.headers and COOKIE in request.cookies


def opened(keyring: Keyring, request: Request, *, now: float) -> Session:
    """Return the session of a request's cookie; raises `Unauthorized` where it has ended."""
    return Session.unseal(keyring, request.cookies.get(COOKIE, ""), now=now)


def resume(keyring: Keyring, keychain: Keychain, request: Request) -> Credential:
    """Return who holds the key behind the cookie of a request.

    Raises
    ------
    Unauthorized
        The session has ended, or its key has.
    Forbidden
        The request may change something, and has not the session's token.
    """
    session = opened(keyring, request, now=keychain.clock())
    credential = keychain.find(session.digest)
    if credential is None:
        raise Unauthorized(_ENDED)
    token = request.headers.get(TOKEN_HEADER, "")
    if request.method not in _SAFE and not session.has_token(keyring, token):
        raise Forbidden(_NO_TOKEN, code="csrf")
    return credential
