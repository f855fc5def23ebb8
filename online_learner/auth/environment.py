"""The keys that the environment gives: the application's own, and the auditors'."""

from __future__ import annotations

from online_learner import secret
from online_learner.auth.credential import AUDITOR, OWN, Scope
from online_learner.auth.records import allow, keys
from online_learner.auth.tokens import digest, is_mistyped
from online_learner.errors import ConfigError
from online_learner.store import Store
from online_learner.store.keys import AUTH

LEAST = 32  # characters


def key_from_environment(name: str) -> str | None:
    """Return the key in an environment variable, or in the file that `<name>_FILE` names.

    It may be of any form, as long as nobody guesses it.

    Raises
    ------
    ConfigError
        It is short, mistyped, or cannot be sent in a header; says how to make one.
    """
    key = secret.from_environment(name)
    if key is None:
        return None
    if len(key) < LEAST or not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(
            f"{name} must be {LEAST} or more ASCII characters without spaces. Make one with "
            "`online-learner keys create`, or set it to ol_$(openssl rand -hex 32)."
        )
    if is_mistyped(key):
        raise ConfigError(f"{name} is mistyped: its checksum is wrong. Copy it once more.")
    return key


async def allow_environment_keys(
    store: Store, key: str | None, *, name: str, auditors: str | None = None
) -> None:
    """Let in the application's own key, and the auditors' that `OL_AUDIT_KEY` names.

    A key that was given before, and no longer is, ends here.

    Parameters
    ----------
    auditors
        The auditors' key where the environment names none.

    Raises
    ------
    ConfigError
        The two are one and the same, or one of them cannot be used.
    """
    auditors = key_from_environment("OL_AUDIT_KEY") or auditors
    if auditors and auditors == key:
        raise ConfigError(
            "OL_AUDIT_KEY is the application's own key, whose words are those of its users: give "
            "auditors another one"
        )
    if key:
        await _let_in(store, key, name, OWN)
    if auditors:
        await _let_in(store, auditors, "auditor", AUDITOR)
    given = {digest(each) for each in (key, auditors) if each}
    gone = [k.digest for k in await keys(store) if k.given and k.digest not in given]
    if gone:
        await store.call("HDEL", AUTH, *gone)


async def _let_in(store: Store, key: str, name: str, scopes: tuple[Scope, ...]) -> None:
    there = {known.digest: known for known in await keys(store)}.get(digest(key))
    if there is not None and there.revoked_at is not None:
        variable, file = (
            ("OL_AUDIT_KEY", "audit_key") if scopes == AUDITOR else ("OL_API_KEY", "api_key")
        )
        raise ConfigError(
            f"the key that is given for '{name}' was revoked: give another in {variable}, or "
            f"remove {file} from the data directory to have one made"
        )
    if there is None or there.given:  # what `keys create` made stays as it was made
        await allow(store, key, name=name, scopes=scopes, given=True)
