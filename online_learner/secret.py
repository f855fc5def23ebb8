"""Secrets come from the environment, or from a file that only its owner reads; nobody is shown one.

A store's URL may carry a password. It is written down without (`shown`): in settings, notes, errors
and the arguments of applications. Whoever opens the store finds the password again in the
environment of its own process (`complete`).
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

from online_learner.errors import ConfigError

STORE_VARIABLES = ("OL_STORE", "REDIS_URL")
HIDDEN = "(hidden)"

_CREDENTIAL = re.compile("username|.*pass(word|wd|phrase)?", re.IGNORECASE)
_TELLING = re.compile(
    "pass(word|wd|phrase)|secret|credential|private|(api|access)[-_]?key|(^|[-_])(token|auth)$",
    re.IGNORECASE,
)


def from_environment(name: str) -> str | None:
    """Return the secret in the variable `name`, or in the file that `<name>_FILE` names.

    Raises
    ------
    ConfigError
        Both are set, or the file cannot be read, or is empty.
    """
    value, file = os.environ.get(name), os.environ.get(f"{name}_FILE")
    if value and file:
        raise ConfigError(f"{name} and {name}_FILE are both set: leave one of them out")
    if not file:
        return value or None
    try:
        text = Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise ConfigError(f"{name}_FILE cannot be read: {reason}") from None
    if not text:
        raise ConfigError(f"{name}_FILE names a file that is empty")
    return text


def origin(name: str) -> str | None:
    """Return the variable that gives a secret, None where none does."""
    return next((found for found in (name, f"{name}_FILE") if os.environ.get(found)), None)


def read_or_create(path: Path, make: Callable[[], str]) -> str:
    """Return the secret in a file, which is made, for its owner only, where there is none yet."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
        with os.fdopen(os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as file:
            file.write(make())
            file.flush()
            os.fsync(file.fileno())  # what it signs outlives a power cut, so it has to as well
        # A link is made whole or not at all, and the first of several processes wins.
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
        draft.unlink()
    return path.read_text().strip()


# --- the store's URL --------------------------------------------------------------------------


def shown(url: str) -> str:
    """Return a store's URL without user and password, however it is misspelt.

    >>> shown("redis://app:hunter2@db:6379/0"), shown("rediss://:pa/s?s@db?password=x&db=1")
    ('redis://db:6379/0', 'rediss://db?db=1')
    >>> shown("unix:///run/a@b.sock?db=1&password=x"), shown("auto")
    ('unix:///run/a@b.sock?db=1', 'auto')
    """
    scheme, slashes, rest = url.partition("://") if "://" in url else ("", "", url)
    if not rest.startswith("/"):  # a path may hold an @
        rest = rest.rpartition("@")[2]
    place, _, query = rest.partition("?")
    parts = query.split("&") if query else []
    left = "&".join(p for p in parts if not _CREDENTIAL.fullmatch(unquote(p.partition("=")[0])))
    return f"{scheme}{slashes}{place}" + (f"?{left}" if left else "")


def complete(url: str) -> str:
    """Return the URL as the environment gives it, password included, where it gives this one."""
    known = [
        full for name in STORE_VARIABLES if (full := from_environment(name)) and shown(full) == url
    ]
    return next((full for full in known if full != url), url)


def hide(document: object) -> object:
    """Return a document with all hidden whose keys say that it is secret.

    >>> hide({"use": "team:learner", "api_key": "k", "tokens": 8, "of": [{"password": "p"}]})
    {'use': 'team:learner', 'api_key': '(hidden)', 'tokens': 8, 'of': [{'password': '(hidden)'}]}
    """
    if isinstance(document, list):
        return [hide(part) for part in document]
    if not isinstance(document, dict):
        return document
    return {
        key: HIDDEN if value is not None and _TELLING.search(str(key)) else hide(value)
        for key, value in document.items()
    }
