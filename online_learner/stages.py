"""The stages of one model, wired to one store, with what a team tunes in its configuration."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from inspect import signature
from pathlib import Path
from typing import Any

from online_learner.archive.archiver import Archiver
from online_learner.archive.log import Log
from online_learner.archive.place import Place
from online_learner.errors import ConfigError
from online_learner.forget.handover import Handover
from online_learner.forget.unlearn import Unlearning
from online_learner.ids import Keyring
from online_learner.ingest import Admission
from online_learner.inputs import Inputs
from online_learner.journal import Journal
from online_learner.learn import Trainer
from online_learner.learners import Learner, Ranker
from online_learner.learners.factory import make_learner, resolve
from online_learner.observe.lens import Lens
from online_learner.observe.observer import Observer
from online_learner.observe.quality import Quality
from online_learner.predict import Predictor
from online_learner.promote import Gatekeeper
from online_learner.registry import Registry
from online_learner.replay import Replay
from online_learner.retain import Retention
from online_learner.settings import ModelSpec
from online_learner.store import Store
from online_learner.swap import Follower
from online_learner.weigh import Corrections

RULES = "policies.rules:Rules"


@dataclass
class Stages:
    """The stages of one model, wired to one store; each is built when it is first used.

    Parameters
    ----------
    window_s
        For how many seconds an answer takes feedback.
    trains
        Whether the weights are learned here, and may be on a GPU; else they stay on the CPU.
    data_dir
        Where the archive is, where the configuration does not say another place; None: no archive.
    """

    store: Store
    keyring: Keyring
    model: str
    spec: ModelSpec
    window_s: float = 86_400.0
    trains: bool = True
    data_dir: Path | None = None
    clock: Callable[[], float] = time.time
    rng: random.Random = field(default_factory=random.Random)

    @cached_property
    def predictor(self) -> Predictor:
        """Stage 1: answer."""
        return Predictor(
            self.model,
            self.spec,
            self.rules,
            self.rng,
            inputs=self.inputs,
            sampling=make_sampling(self.spec),
        )

    @cached_property
    def journal(self) -> Journal:
        """Stage 2: log."""
        segments = self.spec.guard_segments
        return Journal(self.store, self.model, window_s=self.window_s, segments=segments)

    @cached_property
    def admission(self) -> Admission:
        """Stage 3: accept."""
        log = None if self.log.place is None else self.log
        return Admission(self.spec, self.signals, self.rules, self.inputs, log)

    @cached_property
    def trainer(self) -> Trainer:
        """Stage 4: learn."""
        return Trainer(
            self.registry,
            self.spec,
            self.learner,
            self.signals,
            self.policy,
            validation=make_validation(self.spec),
            corrections=Corrections(make_lenses(self.spec)),
            log=self.log,
            handover=Handover(self.replay_afresh),
            trusted=self.policy.trusted_at_once,
            clock=self.clock,
        )

    def replay_afresh(self) -> Replay:
        """Return a replay of fresh parts: they have learned nothing, and remember nobody."""
        return Replay(
            self.registry,
            make_signals(self.spec),
            make_learner(self.spec if self.trains else self.spec.on_cpu()),
            make_validation(self.spec),
            Corrections(make_lenses(self.spec)),
            log=self.log,
        )

    @cached_property
    def unlearning(self) -> Unlearning:
        """Stage 4, beside it: learn again without what was taken back."""
        return Unlearning(
            self.registry, self.trainer, self.replay_afresh, gather_s=0.0, clock=self.clock
        )

    @cached_property
    def gatekeeper(self) -> Gatekeeper:
        """Stages 5 and 6: judge, promote."""
        return Gatekeeper(self.registry, self.spec, self.policy, self.signals, clock=self.clock)

    @cached_property
    def observer(self) -> Observer:
        """Beside them: look on."""

        def build() -> dict[str, Lens]:
            return {**make_lenses(self.spec)}

        return Observer(
            self.registry,
            self.spec.observe,
            build,
            self.signals,
            window_s=self.window_s,
            clock=self.clock,
        )

    @cached_property
    def retention(self) -> Retention:
        """Stage 8: trim."""
        return Retention(
            self.store,
            self.model,
            window_s=self.window_s,
            archived=self.log.place is not None,
            horizon_s=self.spec.unlearn_horizon,
            clock=self.clock,
        )

    @cached_property
    def archiver(self) -> Archiver | None:
        """Before it: what leaves the store goes on file; None where it does not."""
        place = self.log.place
        if place is None:
            return None
        return Archiver(self.registry, place, window_s=self.window_s, clock=self.clock)

    @cached_property
    def follower(self) -> Follower:
        """Stage 7: swap."""
        return Follower(self.registry, self.predictor, self.learner)

    @cached_property
    def log(self) -> Log:
        """All that was ever recorded, be it in the store or on file."""
        return Log(self.registry, archive_place(self.spec, self.data_dir))

    # --- what they rest on --------------------------------------------------------------------

    @cached_property
    def registry(self) -> Registry:
        """What is kept of the model."""
        return Registry(self.store, self.keyring, self.model)

    @cached_property
    def learner(self) -> Learner | Ranker:
        """The learner as its factory makes it."""
        return make_learner(self.spec if self.trains else self.spec.on_cpu())

    @cached_property
    def signals(self) -> Any:
        """What a signal means; see `policies.signals`."""
        return make_signals(self.spec)

    @cached_property
    def policy(self) -> Any:
        """When new weights may answer; see `policies.promotion`."""
        return make_policy(self.spec)

    @cached_property
    def inputs(self) -> Inputs:
        """What the log keeps of what is asked."""
        return Inputs(self.spec.log_inputs, partial(self.keyring.pseudonym, self.model.encode()))

    @cached_property
    def rules(self) -> Any:
        """What makes flags; see `policies.rules`."""
        return make_rules(self.spec)


def archive_place(spec: ModelSpec, data_dir: Path | None) -> Place | None:
    """Return where a model's log goes on file; None where it does not."""
    root = data_place(spec, data_dir)
    return None if root is None or spec.archive is None else root.at("archive")


def data_place(spec: ModelSpec, data_dir: Path | None) -> Place | None:
    """Return where archive and datasets are: as configured, else the data directory."""
    if spec.archive is not None and spec.archive != "auto":
        return Place.open(spec.archive)
    return None if data_dir is None else Place.open(data_dir)


# --- what a team tunes ------------------------------------------------------------------------


def make_policy(spec: ModelSpec) -> Any:
    """Build the promotion policy that a spec names."""
    kind = resolve(spec.promotion.policy)
    try:
        return kind(**spec.promotion.arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"promotion: {spec.promotion.policy} does not take that: {error}"
        ) from error


def make_signals(spec: ModelSpec) -> Any:
    """Build the table of what signals mean."""
    kind = resolve(spec.signals)
    more = {"categories": spec.categories, "implicit_weight": spec.implicit_weight}
    try:
        return kind(spec.task, spec.labels, **more)
    except TypeError as error:
        raise ConfigError(f"signals: {spec.signals} does not take that: {error}") from error


def make_validation(spec: ModelSpec) -> Any:
    """Build the policy that says whom to believe, and how far."""
    kind = resolve(spec.validation.use)
    try:
        return kind(spec.task, **spec.validation.arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"validation: {spec.validation.use} does not take that: {error}"
        ) from error


def make_lenses(spec: ModelSpec) -> dict[str, Any]:
    """Build those who look on, by name; how good the answers are is always looked at."""
    quality = Quality(spec.task, spec.labels, segments=spec.guard_segments)
    found: dict[str, Any] = {"quality": quality}
    for name, factory in spec.observe.lenses().items():
        kind, options = resolve(factory.use), dict(factory.arguments)
        try:
            if name == "implicit" and "weight" in signature(kind).parameters:  # a team's may not
                options |= {"weight": spec.implicit_weight}
            found[name] = kind(spec.task, spec.labels, segments=spec.guard_segments, **options)
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"observe.{name}: {factory.use} does not take that: {error}"
            ) from error
    return found


def make_sampling(spec: ModelSpec) -> Any:
    """Build the policy that says of which answers a label is asked; None where none can teach."""
    kind = resolve(spec.sampling.use)
    try:
        made = kind(spec.task, spec.ask_budget, **spec.sampling.arguments)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"sampling: {spec.sampling.use} does not take that: {error}") from error
    return None if spec.log_inputs == "none" else made


def make_rules(spec: ModelSpec) -> Any:
    """Build the rules on inputs, outputs, comments and corrections.

    A model's `output_schema` is one of them: a correction that breaks it is refused.
    """
    rules = list(spec.rules)
    if spec.output_schema is not None:
        kept = {"name": "output_schema", "on": "feedback", "severity": "block"}
        rules.append({"rule": "json_schema", "schema": spec.output_schema, **kept})
    try:
        return resolve(RULES)(rules)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def check_model(spec: ModelSpec) -> None:
    """Build all that a model's configuration names; raises `ConfigError` where it cannot be."""
    make_rules(spec)
    make_signals(spec)
    make_policy(spec)
    make_validation(spec)
    make_lenses(spec)
    make_sampling(spec)
    make_learner(spec)
