"""`keys create`, `keys list`, `keys rotate`, `keys revoke`: who is let in, in the store itself."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from online_learner.cli.here import in_store
from online_learner.cli.output import AsJson, show, table, when

if TYPE_CHECKING:
    from online_learner.auth import Credential, Scope

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}

Config: TypeAlias = Annotated[
    Path | None, typer.Option(exists=True, dir_okay=False, help="Names the store.")
]
KeyId: TypeAlias = Annotated[str, typer.Argument(help="As `keys list` shows it; not the key.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(no_args_is_help=True, help="Make, list, rotate and revoke API keys.")
    group.command()(create)
    group.command(name="list")(list_keys)
    group.command()(rotate)
    group.command()(revoke)
    app.add_typer(group, name="keys")


def create(
    *,
    name: Annotated[str, typer.Option(help="Who holds it; one name, one holder.")],
    scope: Annotated[
        list[str],
        typer.Option(help="What it may do; again for more: predict, feedback, read, ..."),
    ],
    expires: Annotated[str | None, typer.Option(help="How long it lasts: 90d, 12h.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make a key. It is printed this once, and kept nowhere."""
    from online_learner.auth import create

    scopes = [_scope(word) for word in scope]
    lasts_s = None if expires is None else seconds(expires)
    made = in_store(config, lambda store: create(store, name=name, scopes=scopes, lasts_s=lasts_s))
    _hand_over(*made, as_json=as_json)


def list_keys(*, config: Config = None, as_json: AsJson = False) -> None:
    """List who has a key: what each may do, and how long. The keys themselves are kept nowhere."""
    from online_learner.auth import keys

    found = in_store(config, keys)
    rows = [_row(key) for key in found]
    columns = ("id", "name", "scopes", "state", "created", "expires")
    show(
        {"keys": [_described(key) for key in found]},
        as_json=as_json,
        text=lambda: table(columns, rows),
    )


def rotate(
    key_id: KeyId,
    *,
    grace: Annotated[str, typer.Option(help="How long the old one is still good.")] = "1h",
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Make another key for the same holder; the old one ends after the grace."""
    from online_learner.auth import rotate

    made = in_store(config, lambda store: rotate(store, key_id, grace_s=seconds(grace)))
    _hand_over(*made, as_json=as_json)


def revoke(key_id: KeyId, *, config: Config = None) -> None:
    """End a key for good, within a second."""
    from online_learner.auth import revoke

    found = in_store(config, lambda store: revoke(store, key_id))
    typer.echo(f"{found.id} of {found.name} is revoked.")
    if found.given:
        typer.echo(
            "It is given by the environment or the data directory: the next start refuses it."
        )


def seconds(text: str) -> float:
    """Return a duration in seconds.

    >>> seconds("90d"), seconds("1h"), seconds("0s")
    (7776000.0, 3600.0, 0.0)
    """
    found = re.fullmatch(r"(\d{1,6})([smhdw])", text)
    if found is None:
        raise typer.BadParameter("say how long as 30s, 15m, 12h, 90d or 4w")
    return float(found[1]) * _UNITS[found[2]]


def _scope(word: str) -> Scope:
    from online_learner.auth import SCOPES
    from online_learner.errors import did_you_mean

    if word not in SCOPES:
        hint = did_you_mean(word, SCOPES)
        raise typer.BadParameter(f"no such scope.{hint} There are {', '.join(SCOPES)}.")
    return word


def _hand_over(key: str, made: Credential, *, as_json: bool) -> None:
    """Print a new key alone on standard output, and what to know of it beside it."""
    if as_json:
        typer.echo(json.dumps({"key": key, **_described(made)}, indent=2))
        return
    typer.echo(key)
    until = "" if made.expires_at is None else f" It is good until {when(made.expires_at)}."
    typer.echo(
        f"Key {made.id} of {made.name}: {', '.join(sorted(made.scopes))}.{until} It is shown this "
        "once.",
        err=True,
    )


def _described(key: Credential) -> dict[str, Any]:
    state = key.standing(time.time())
    return {**json.loads(key.dump()), "revoked_at": key.revoked_at, "state": state}


def _row(key: Credential) -> tuple[object, ...]:
    state = key.standing(time.time())
    ends_at = when(key.expires_at or 0)
    return (key.id, key.name, ",".join(sorted(key.scopes)), state, when(key.created_at), ends_at)
