"""The Serve applications: a gateway, an archivist, and for each model its learner and gatekeeper.

`build_gateway`, `build_model` and `build_archive` are for `serve deploy` (see `serve.yaml`): they
check their arguments, write them to the store as a configuration version, and return the
application. Serve takes the arguments into an application's code version, so a changed model
restarts its own learner and nothing else; gateways and archivist follow the store.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import AutoscalingConfig

from online_learner import auth, config
from online_learner.errors import ConfigError
from online_learner.ids import Keyring
from online_learner.retrain.search import check_search
from online_learner.secret import origin
from online_learner.settings import GatewaysSpec, ModelSpec, Settings
from online_learner.stages import check_model
from online_learner.store import Store, open_store
from serve_app.archivist import Archivist
from serve_app.feedback_actor import FeedbackActor
from serve_app.gatekeeper import Gatekeeper
from serve_app.gateway import create_app
from serve_app.telemetry.logs import join_serve

QUIET = {"enable_access_log": False, "log_level": "WARNING"}


@serve.ingress()
class Gateway:
    """Answers predictions and takes feedback. Any number of replicas."""

    def __init__(self, store_url: str, data_dir: str) -> None:
        join_serve()
        self._place = (store_url, data_dir)

    def __serve_build_asgi_app__(self) -> Any:
        return create_app(*self._place)

    async def check_health(self) -> None:
        """Raise where the application has not started; a store that is away is no reason."""
        if self.app.state.service is None:  # type: ignore[attr-defined]
            raise RuntimeError("the gateway has not started")


def gateway(store_url: str, data_dir: str, *, replicas: int | GatewaysSpec = 1) -> Application:
    """Return the gateway application."""
    deployment: Any = serve.deployment(
        Gateway,
        name="Gateway",
        **_how_many(replicas),
        # Shedding load is the application's business: Serve's own refusal is not problem+json.
        max_ongoing_requests=1000,
        max_queued_requests=4000,
        health_check_period_s=2,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=5,
        graceful_shutdown_wait_loop_s=0.1,
        max_surge_percent=100,
        ray_actor_options={"num_cpus": 0.1},
        logging_config=QUIET,
    )
    bound: Application = deployment.bind(store_url, data_dir)
    return bound


def _how_many(replicas: int | GatewaysSpec) -> dict[str, Any]:
    """Return Serve's options for a number of replicas, or for bounds on it."""
    if isinstance(replicas, int):
        return {"num_replicas": replicas}
    scaling = AutoscalingConfig(
        min_replicas=replicas.min,
        max_replicas=replicas.max,
        target_ongoing_requests=replicas.target_ongoing_requests,
        metrics_interval_s=1,
        look_back_period_s=5,
        upscale_delay_s=3,
        downscale_delay_s=30,  # a new one takes seconds to start: a short lull is no reason
    )
    return {"autoscaling_config": scaling}


def model_app(model: str, spec: ModelSpec, store_url: str, data_dir: str) -> Application:
    """Return the application of one model: its gatekeeper and its feedback actor."""
    actor = _single(FeedbackActor, f"FeedbackActor-{model}", **_actor_options(model, spec))
    resources = spec.resources.custom
    keeper = _single(Gatekeeper, f"Gatekeeper-{model}", num_cpus=0.1, resources=resources)
    learner = actor.bind(model, store_url, data_dir)
    bound: Application = keeper.bind(model, store_url, data_dir, learner)
    return bound


def archive_app(store_url: str, data_dir: str) -> Application:
    """Return the application that archives the logs of all models."""
    bound: Application = _single(Archivist, "Archivist", num_cpus=0.05).bind(store_url, data_dir)
    return bound


def needs_archive(settings: Settings) -> bool:
    """Tell whether there is anything for that application to do."""
    return any(
        spec.archive is not None
        or spec.retrain.on_drift
        or spec.retrain.every_s is not None
        or spec.retrain.after_signals is not None
        for spec in settings.models.values()
    )


def _single(kind: type, name: str, **options: Any) -> Any:
    """Return the deployment of what there is one of."""
    return serve.deployment(
        kind,
        name=name,
        num_replicas=1,
        max_ongoing_requests=8,
        max_queued_requests=16,
        health_check_period_s=1,
        health_check_timeout_s=10,
        graceful_shutdown_timeout_s=3,
        graceful_shutdown_wait_loop_s=0.1,
        max_surge_percent=0,
        ray_actor_options=options,
        logging_config=QUIET,
    )


def _actor_options(model: str, spec: ModelSpec) -> dict[str, Any]:
    """Return what the learner asks Ray for; a GPU that no node has is an error, not a long wait."""
    options = spec.resources.model_dump(exclude={"custom"})
    options["resources"] = dict(spec.resources.custom)
    if not spec.resources.num_gpus or spec.on_gpu_missing == "wait":
        return options
    there = ray.cluster_resources().get("GPU", 0.0)  # type: ignore[no-untyped-call]
    if spec.resources.num_gpus <= there:
        return options
    if spec.on_gpu_missing == "cpu":
        return options | {"num_gpus": 0}
    raise ConfigError(
        f"'{model}' asks for {spec.resources.num_gpus:g} GPU, and this cluster has {there:g}: set "
        "resources.num_gpus to 0, or `on_gpu_missing: cpu` to learn on the CPU until there is one, "
        "or `wait` where an autoscaler brings one"
    )


# --- for `serve deploy` -----------------------------------------------------------------------


def build_gateway(args: dict[str, Any]) -> Application:
    """Build the gateway from the settings without models: `{store, data_dir, window_s, ...}`."""
    settings = _settings(args)

    async def write(store: Store, keyring: Keyring) -> None:
        await config.publish_settings(store, keyring, settings)
        await auth.allow_environment_keys(
            store, auth.key_from_environment("OL_API_KEY"), name="OL_API_KEY"
        )

    _publish(settings, write)
    return gateway(settings.store, str(settings.data_dir), replicas=settings.gateways)


def build_model(args: dict[str, Any]) -> Application:
    """Build one model's learner and gatekeeper from `{store, data_dir, model, spec}`."""
    unknown = set(args) - {"store", "data_dir", "model", "spec"}
    if unknown or not {"model", "spec"} <= set(args):
        raise ConfigError("build_model takes store, data_dir, model and spec")
    model = str(args["model"])
    place: dict[str, Any] = {key: args[key] for key in ("store", "data_dir") if key in args}
    settings = _settings({**place, "models": {model: args["spec"]}})
    spec = settings.model(model)
    check_model(spec.on_cpu())  # the GPU is on another node
    check_search(spec.on_cpu())

    async def write(store: Store, keyring: Keyring) -> None:
        await config.publish_model(store, keyring, model, spec)

    _publish(settings, write)
    return model_app(model, spec, settings.store, str(settings.data_dir))


def build_archive(args: dict[str, Any]) -> Application:
    """Build the archivist of all models from `{store, data_dir}`."""
    if unknown := set(args) - {"store", "data_dir"}:
        raise ConfigError(f"build_archive takes store and data_dir, not {len(unknown)} other keys")
    settings = _settings(dict(args))
    return archive_app(settings.store, str(settings.data_dir))


def _settings(document: dict[str, Any]) -> Settings:
    settings = Settings.parse({"models": {}, **document}, name="serve.yaml").absolute()
    if settings.store == "auto":
        raise ConfigError(
            "a cluster needs a store that every node reaches: set `store: redis://host:port` or "
            "REDIS_URL. (`online-learner up` runs the bundled one.)"
        )
    return settings


def _publish(settings: Settings, write: Callable[[Store, Keyring], Awaitable[None]]) -> None:
    async def run() -> None:
        async with await open_store(settings.store, data_dir=Path(settings.data_dir)) as store:
            await write(store, Keyring.load(settings.data_dir))

    if origin("OL_SECRET") is None and not settings.data_dir.exists():
        settings.data_dir.mkdir(parents=True)
    asyncio.run(run())
