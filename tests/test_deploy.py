"""The files that operators deploy with are what Ray takes, and what our builders take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from online_learner import config
from online_learner.errors import ConfigError
from online_learner.ids import Keyring
from online_learner.store import Store
from online_learner.store.embedded import EmbeddedServer

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def deployed() -> dict[str, Any]:
    """Return `serve.yaml`, read."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "serve_app" / "serve.yaml").read_text())
    return found


@pytest.mark.filterwarnings("ignore")
def test_cluster_yaml_is_valid() -> None:
    """Ray's own validation takes `cluster.yaml`, and would refuse a misspelt key."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    document = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    validate_config(prepare_config(document))
    with pytest.raises(Exception, match="not_a_key"):
        validate_config(prepare_config({**document, "not_a_key": 1}))


@pytest.mark.filterwarnings("ignore")
def test_serve_yaml_has_no_unknown_key(deployed: dict[str, Any]) -> None:
    """Serve ignores misspelt keys, so this compares what was read with what was written."""
    from ray.serve.schema import ServeDeploySchema

    parsed = ServeDeploySchema.model_validate(deployed).model_dump(exclude_unset=True)
    assert set(deployed) <= set(parsed)
    for written, read in zip(deployed["applications"], parsed["applications"], strict=True):
        assert set(written) == set(read)


@pytest.mark.filterwarnings("ignore")
async def test_the_builders_publish_what_serve_yaml_says(
    deployed: dict[str, Any],
    server: EmbeddedServer,
    store: Store,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Deploying writes gateway and model into the store's configuration, each by itself."""
    from serve_app import app

    monkeypatch.setenv("REDIS_URL", server.url)
    monkeypatch.setenv("OL_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("OL_API_KEY", "ol_" + "k" * 32)
    builders = {"build_gateway": app.build_gateway, "build_model": app.build_model}
    for application in deployed["applications"]:
        build = builders[application["import_path"].partition(":")[2]]
        await asyncio.to_thread(build, application["args"])
    settings = await config.fetch(store, Keyring.load(tmp_path))
    assert list(settings.models) == ["phishing"]
    assert settings.models["phishing"].labels == [False, True]
    assert settings.window_s == 86_400
    assert await store.call("HLEN", "ol:auth") == 1
    before = await config.version(store)
    again = deployed["applications"][1]["args"] | {"model": "another"}
    await asyncio.to_thread(app.build_model, again)
    assert sorted((await config.fetch(store, Keyring.load(tmp_path))).models) == [
        "another",
        "phishing",
    ]
    assert await config.version(store) == before + 1


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_needs_a_store_that_every_node_reaches() -> None:
    """`store: auto` is refused by `serve deploy`, which says what to set instead."""
    from serve_app import app

    with pytest.raises(ConfigError, match="REDIS_URL"):
        app.build_gateway({})


@pytest.mark.filterwarnings("ignore")
async def test_applications_carry_no_password(
    deployed: dict[str, Any],
    start_server: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """They get the store's URL without it, and `serve.yaml`, which others read, may not have it."""
    from ray import cloudpickle

    from serve_app import app

    server = start_server(requirepass="hunter2-Zanzibarquux")
    url = server.url.replace("//", "//:hunter2-Zanzibarquux@")
    monkeypatch.setenv("OL_DATA_DIR", str(tmp_path))
    gateway, model = (application["args"] for application in deployed["applications"])
    with pytest.raises(ConfigError, match="OL_STORE") as refused:
        app.build_gateway(gateway | {"store": url})
    assert "hunter2" not in str(refused.value)
    monkeypatch.setenv("REDIS_URL", url)
    for build, args in ((app.build_gateway, gateway), (app.build_model, model)):
        built = cloudpickle.dumps(await asyncio.to_thread(build, args))
        assert server.url.encode() in built
        assert b"hunter2" not in built
