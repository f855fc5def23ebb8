"""`config show` and `config remove`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from online_learner.cli.here import find_config, in_store
from online_learner.cli.output import AsJson, show

if TYPE_CHECKING:
    from online_learner.settings import Settings

SECRETS = ("OL_SECRET", "OL_API_KEY", "OL_AUDIT_KEY")
# Files that `up` makes in data_dir.
_MADE = {"OL_SECRET": "secret", "OL_API_KEY": "api_key", "OL_AUDIT_KEY": "audit_key"}


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(help="The configuration.", no_args_is_help=True)
    group.command("show")(config_show)
    group.command("remove")(config_remove)
    app.add_typer(group, name="config")


def config_show(
    *,
    config: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
    as_json: AsJson = False,
) -> None:
    """Print the configuration as it takes effect, and where each part of it comes from.

    Secrets are named and not shown.
    """
    from online_learner.secret import hide
    from online_learner.settings import Settings

    file = find_config(config)
    settings = Settings.load(file)
    found: dict[str, Any] = {
        "file": str(file),
        "settings": hide(settings.model_dump(mode="json")),
        "sources": sources(file),
        "secrets": secrets(settings),
    }
    show(found, as_json=as_json, text=lambda: _tell(found))


def config_remove(
    model: str,
    *,
    config: Annotated[Path | None, typer.Option(exists=True, dir_okay=False)] = None,
) -> None:
    """Have gateways forget a model that was taken out of `serve.yaml`; its records stay.

    Deploy first: a learner that still runs would have nothing to learn for.
    """
    from online_learner.config import withdraw
    from online_learner.errors import ConfigError

    if not in_store(config, lambda store: withdraw(store, model)):
        raise ConfigError(f"no model '{model}' is in the configuration of that store")
    typer.echo(f"'{model}' is gone from the configuration; gateways follow within a second.")


def sources(file: Path) -> dict[str, str]:
    """Return for each setting the file or the variable that it is from, or `default`."""
    import yaml

    from online_learner.settings import Settings

    written = yaml.safe_load(file.read_text())
    found = {}
    for name in Settings.model_fields:
        where = [str(file)] if name in written else []
        variable = _variable(name, written)
        if variable is not None:
            where = [variable, *where] if name == "models" else [variable]
        found[name] = " and ".join(where) or "default"
    return found


def _variable(name: str, written: dict[str, Any]) -> str | None:
    """Return the variable that wins over the file, None where none does."""
    from online_learner.secret import origin

    variable = f"OL_{name.upper()}"
    if name != "store":
        return variable if os.environ.get(variable) else None
    fallback = written.get("store", "auto") == "auto"
    return origin(variable) or (origin("REDIS_URL") if fallback else None)


def secrets(settings: Settings) -> dict[str, str]:
    """Return where each secret is from: a variable, a file, or nowhere yet."""
    from online_learner.secret import complete, origin

    found = {}
    for name in SECRETS:
        made = settings.data_dir / _MADE[name] if name in _MADE else None
        kept = str(made) if made is not None and made.exists() else "none"
        found[name] = origin(name) or kept
    password = complete(settings.store) != settings.store
    found["store password"] = "the store's URL in the environment" if password else "none"
    return found


def _tell(found: dict[str, Any]) -> None:
    import yaml

    for name, value in found["settings"].items():
        first, *rest = yaml.safe_dump({name: value}, sort_keys=False).splitlines()
        typer.echo("\n".join([f"{first}  # {found['sources'][name]}", *rest]))
    typer.echo("# Secrets, which nobody is shown:")
    for name, place in found["secrets"].items():
        typer.echo(f"#   {name}: {place}")
