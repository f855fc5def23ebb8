"""The configuration in the store, one field a model, with a version that every deployment follows.

A model can be added or changed by itself: gateways pick it up, and nothing else is restarted.

It names what is imported and run. So each field is sealed: who can write to the store, and has not
the signing key, cannot have code of theirs run.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from online_learner.errors import ConfigError
from online_learner.ids import Keyring
from online_learner.settings import ModelSpec, Settings
from online_learner.store import Store
from online_learner.store.keys import CONFIG

_SETTINGS, _MODEL = "settings", "model:"
_PURPOSE = "config"
_TAG_BYTES = 32


async def publish(store: Store, keyring: Keyring, settings: Settings) -> int:
    """Write the settings and all their models; models that are gone go. Returns the version."""
    document = settings.model_dump(mode="json")
    fields = {f"{_MODEL}{name}": json.dumps(spec) for name, spec in document.pop("models").items()}
    there = [key.decode() for key in await store.hash(CONFIG)]
    gone = [key for key in there if key.startswith(_MODEL) and key not in fields]
    return await _write(store, keyring, {_SETTINGS: json.dumps(document)} | fields, gone)


async def publish_settings(store: Store, keyring: Keyring, settings: Settings) -> int:
    """Write the settings, and leave the models as they are. Returns the version."""
    document = settings.model_dump(mode="json", exclude={"models"})
    return await _write(store, keyring, {_SETTINGS: json.dumps(document)})


async def publish_model(store: Store, keyring: Keyring, model: str, spec: ModelSpec) -> int:
    """Write one model, and leave everything else as it is. Returns the version."""
    return await _write(store, keyring, {f"{_MODEL}{model}": spec.model_dump_json()})


async def withdraw(store: Store, model: str) -> bool:
    """Take one model out, so that nobody answers for it; tell whether it was there.

    What was said to it and what it learned stays in the store.
    """
    before = await version(store)
    return int(await store.run("configure", [CONFIG], [1, f"{_MODEL}{model}"])) > before


async def _write(
    store: Store, keyring: Keyring, fields: dict[str, str], gone: Sequence[str] = ()
) -> int:
    arguments: list[Any] = [len(gone), *gone]
    for key, value in fields.items():
        arguments += (key, _seal(keyring, key, value.encode()))
    return int(await store.run("configure", [CONFIG], arguments))


async def version(store: Store) -> int:
    """Return the number of the configuration in the store, 0 where there is none."""
    return int(await store.call("HGET", CONFIG, "version") or 0)


async def fetch(store: Store, keyring: Keyring) -> Settings:
    """Return the settings that the store holds.

    Raises
    ------
    ConfigError
        There are none, or they were written by somebody without our signing key.
    """
    found = {
        key.decode(): json.loads(_unseal(keyring, key.decode(), value))
        for key, value in (await store.hash(CONFIG)).items()
        if key != b"version"
    }
    if _SETTINGS not in found:
        raise ConfigError("the store holds no configuration: start with `online-learner up`")
    models = {key.removeprefix(_MODEL): v for key, v in found.items() if key.startswith(_MODEL)}
    document: dict[str, Any] = {**found[_SETTINGS], "models": models}
    return Settings.parse(document, name="configuration in the store")


def _seal(keyring: Keyring, key: str, value: bytes) -> bytes:
    return keyring.mac(_PURPOSE, key.encode(), value) + value


def _unseal(keyring: Keyring, key: str, sealed: bytes) -> bytes:
    tag, value = sealed[:_TAG_BYTES], sealed[_TAG_BYTES:]
    if not keyring.verify(tag, _PURPOSE, key.encode(), value):
        raise ConfigError(
            "the configuration in the store is not sealed with our signing key: nothing of it is "
            "used. Has OL_SECRET, or data_dir, changed? Then run `online-learner up`, or `serve "
            "deploy`, which writes it anew."
        )
    return value
