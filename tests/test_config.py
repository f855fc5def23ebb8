"""The configuration in the store: what is written is read back, and only what we have sealed."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from online_learner import config
from online_learner.errors import ConfigError
from online_learner.ids import Keyring
from online_learner.settings import Settings
from online_learner.store import Store
from online_learner.store.keys import CONFIG

MakeSettings = Callable[..., Settings]
OLD, NEW = bytes(range(32)), bytes(range(32, 64))


async def test_what_is_written_is_read_back(store: Store, make_settings: MakeSettings) -> None:
    """The version counts changes, and what has not changed is none."""
    keyring, settings = Keyring({1: OLD}), make_settings(web={}, topic={})
    before = await config.version(store)
    assert await config.publish(store, keyring, settings) == before + 1
    assert await config.publish(store, keyring, settings) == before + 1
    assert await config.fetch(store, keyring) == settings
    fewer = make_settings(web={"audit": 0.5})
    assert await config.publish(store, keyring, fewer) == before + 2
    assert await config.fetch(store, keyring) == fewer


async def test_one_model_is_withdrawn(store: Store, make_settings: MakeSettings) -> None:
    """It is gone, the others stay, and what was not there counts no version."""
    keyring = Keyring({1: OLD})
    before = await config.publish(store, keyring, make_settings(web={}, topic={}))
    assert await config.withdraw(store, "web")
    assert list((await config.fetch(store, keyring)).models) == ["topic"]
    assert not await config.withdraw(store, "web")
    assert await config.version(store) == before + 1


async def test_a_new_signing_key_seals_it_anew(store: Store, make_settings: MakeSettings) -> None:
    """While both keys are known the old seal holds; the next start writes the new one."""
    settings, both = make_settings(web={}), Keyring({1: OLD, 2: NEW})
    await config.publish(store, Keyring({1: OLD}), settings)
    assert await config.fetch(store, both) == settings
    await config.publish(store, both, settings)
    assert await config.fetch(store, Keyring({2: NEW})) == settings


@pytest.mark.parametrize("harm", ["changed", "moved", "added", "cut", "foreign"])
async def test_what_is_not_sealed_is_not_read(
    store: Store, make_settings: MakeSettings, harm: str
) -> None:
    """Whoever can write to the store cannot name code to run."""
    keyring = Keyring({1: OLD})
    await config.publish(store, keyring, make_settings(web={}, topic={}))
    web = (await store.hash(CONFIG))[b"model:web"]
    harmed = {
        "changed": ("model:web", web.replace(b"classification", b"regression")),
        "moved": ("model:topic", web),
        "added": ("model:more", web[32:]),
        "cut": ("model:web", web[:20]),
        "foreign": ("model:web", web),
    }
    await store.call("HSET", CONFIG, *harmed[harm])
    reader = Keyring({1: NEW}) if harm == "foreign" else keyring
    with pytest.raises(ConfigError, match="not sealed with our signing key"):
        await config.fetch(store, reader)
