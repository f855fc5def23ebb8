"""The configuration in the store, one field a model, with a version that every deployment follows.

A model can be added or changed by itself: gateways pick it up, and nothing else is restarted.
"""

from __future__ import annotations

import json
from typing import Any

from online_learner.errors import ConfigError
from online_learner.settings import ModelSpec, Settings
from online_learner.store import Store
from online_learner.store.keys import CONFIG

_MODEL = "model:"


async def publish(store: Store, settings: Settings) -> int:
    """Write the settings and all their models; models that are gone go. Returns the version."""
    document = settings.model_dump(mode="json")
    wanted = {f"{_MODEL}{name}": json.dumps(spec) for name, spec in document.pop("models").items()}
    current = await store.hash(CONFIG)
    gone = [
        key for key in map(bytes.decode, current) if key.startswith(_MODEL) and key not in wanted
    ]
    if gone:
        await store.call("HDEL", CONFIG, *gone)
    return await _write(
        store, current, {"settings": json.dumps(document)} | wanted, changed=bool(gone)
    )


async def publish_settings(store: Store, settings: Settings) -> int:
    """Write the settings, and leave the models as they are. Returns the version."""
    document = settings.model_dump(mode="json", exclude={"models"})
    return await _write(store, await store.hash(CONFIG), {"settings": json.dumps(document)})


async def publish_model(store: Store, model: str, spec: ModelSpec) -> int:
    """Write one model, and leave everything else as it is. Returns the version."""
    fields = {f"{_MODEL}{model}": spec.model_dump_json()}
    return await _write(store, await store.hash(CONFIG), fields)


async def _write(
    store: Store, current: dict[bytes, bytes], fields: dict[str, str], *, changed: bool = False
) -> int:
    pairs = [part for pair in fields.items() for part in pair]
    if not changed and all(current.get(k.encode()) == v.encode() for k, v in fields.items()):
        return int(current[b"version"])
    await store.essential("HSET", CONFIG, *pairs)
    return int(await store.essential("HINCRBY", CONFIG, "version", 1))


async def version(store: Store) -> int:
    """Return the number of the configuration in the store, 0 where there is none."""
    return int(await store.call("HGET", CONFIG, "version") or 0)


async def fetch(store: Store) -> Settings:
    """Return the settings that the store holds; raises `ConfigError` where there are none."""
    found = {key.decode(): json.loads(value) for key, value in (await store.hash(CONFIG)).items()}
    if "settings" not in found:
        raise ConfigError("the store holds no configuration: start with `online-learner up`")
    models = {key.removeprefix(_MODEL): v for key, v in found.items() if key.startswith(_MODEL)}
    document: dict[str, Any] = {**found["settings"], "models": models}
    return Settings.parse(document, name="configuration in the store")
