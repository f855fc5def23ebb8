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
from online_learner.settings import GatewaysSpec, ModelSpec, Settings
from online_learner.store import Store
from online_learner.store.embedded import EmbeddedServer
from serve_app import local

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def deployed() -> dict[str, Any]:
    """Return `serve.yaml`, read."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "serve_app" / "serve.yaml").read_text())
    return found


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
    names = ("build_gateway", "build_model", "build_archive")
    builders = {name: getattr(app, name) for name in names}
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
@pytest.mark.parametrize("args", [{}, {"store": "auto"}])
@pytest.mark.parametrize("builder", ["build_gateway", "build_model", "build_archive"])
def test_a_cluster_needs_a_store_that_every_node_reaches(
    builder: str, args: dict[str, Any], deployed: dict[str, Any]
) -> None:
    """`store: auto` is refused by `serve deploy`, which says what to set instead."""
    from serve_app import app

    found = {a["import_path"].partition(":")[2]: a["args"] for a in deployed["applications"]}
    given = found[builder] | args
    with pytest.raises(ConfigError, match=r"store: redis://host:port` or REDIS_URL"):
        getattr(app, builder)(given)


@pytest.mark.filterwarnings("ignore")
def test_a_search_that_no_job_could_do_is_refused(deployed: dict[str, Any]) -> None:
    """It is found out when it is deployed, and not when the first job is due."""
    from serve_app import app

    [given] = [
        a["args"] for a in deployed["applications"] if a["import_path"].endswith(":build_model")
    ]
    spec = {**given["spec"], "retrain": {"after_signals": 100, "search": {"no_such": [1]}}}
    with pytest.raises(ConfigError, match="no argument of that name"):
        app.build_model({**given, "store": "redis://127.0.0.1:1", "spec": spec})


@pytest.mark.filterwarnings("ignore")
def test_the_number_of_gateways_is_fixed_or_follows_the_load() -> None:
    """`gateways` is a number of replicas, or bounds within which Serve goes by the load."""
    from serve_app import app

    fixed = app.gateway("redis://x", "/x", replicas=3)._bound_deployment
    assert (fixed.num_replicas, fixed._deployment_config.autoscaling_config) == (3, None)
    bounds = GatewaysSpec(min=2, max=8, target_ongoing_requests=5)
    scaled = app.gateway("redis://x", "/x", replicas=bounds)._bound_deployment
    found = scaled._deployment_config.autoscaling_config
    assert (found.min_replicas, found.max_replicas, found.target_ongoing_requests) == (2, 8, 5)
    assert found.upscale_delay_s < found.downscale_delay_s


@pytest.mark.filterwarnings("ignore")
def test_learner_and_gatekeeper_run_where_their_resources_are() -> None:
    """`resources.custom` is asked of Ray by both; CPUs and GPUs are the learner's."""
    from serve_app import app

    resources = {"num_cpus": 2, "custom": {"learning": 1}}
    spec = ModelSpec(task="regression", learner="a:b", resources=resources)  # type: ignore[arg-type]
    keeper = app.model_app("rent", spec, "redis://x", "/x")._bound_deployment
    learner = keeper.init_args[-1]._bound_deployment
    assert learner.ray_actor_options == {
        "num_cpus": 2, "num_gpus": 0, "resources": {"learning": 1}
    }  # fmt: skip
    assert keeper.ray_actor_options["resources"] == {"learning": 1}
    assert local._custom(Settings.parse({"models": {"rent": spec}})) == {"learning": 2}


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
    gateway, model, _ = (application["args"] for application in deployed["applications"])
    with pytest.raises(ConfigError, match="OL_STORE") as refused:
        app.build_gateway(gateway | {"store": url})
    assert "hunter2" not in str(refused.value)
    monkeypatch.setenv("REDIS_URL", url)
    for build, args in ((app.build_gateway, gateway), (app.build_model, model)):
        built = cloudpickle.dumps(await asyncio.to_thread(build, args))
        assert server.url.encode() in built
        assert b"hunter2" not in built
