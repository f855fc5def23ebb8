"""The parts of the file: each refuses keys that it does not know."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

FIXED, BETWEEN = "a number", "{min, max}"  # the two forms of `gateways`


class Section(BaseModel):
    """A part of the file: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class PromotionSpec(BaseModel):
    """Which policy decides, by import path, and its own arguments beside it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    policy: str = "policies.promotion:Leash"

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the policy."""
        return dict(self.model_extra or {})


class FactorySpec(BaseModel):
    """What makes a part of a model, by import path or short name, and its arguments beside it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    use: str

    @property
    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of the factory."""
        return dict(self.model_extra or {})


def on_key(rules: Any) -> Any:
    """Put right what YAML makes of an unquoted `on:`, the boolean true."""
    if not isinstance(rules, list):
        return rules
    return [
        {"on" if key is True else key: value for key, value in rule.items()}
        if isinstance(rule, dict)
        else rule
        for rule in rules
    ]


def factory(value: Any) -> Any:
    """Let a factory without arguments be written as its import path alone."""
    return {"use": value} if isinstance(value, str) else value


def factory_or(use: str) -> BeforeValidator:
    """Let `use` be left out, where only an argument is to differ from the default."""

    def read(value: Any) -> Any:
        return {"use": use, **value} if isinstance(value, dict) else factory(value)

    return BeforeValidator(read)


class ExplorationSpec(Section):
    """How a ranking is varied, with logged probabilities, so that it can be learned from.

    `softmax` draws the order from the Plackett-Luce model of the scores over `temperature`;
    `epsilon` shows a uniformly random order with probability `epsilon`.
    """

    kind: Literal["softmax", "epsilon"]
    temperature: Annotated[float, Field(gt=0)] = 1.0
    epsilon: Annotated[float, Field(ge=0, le=1)] = 0.1


class ResourcesSpec(Section):
    """What the feedback actor asks Ray for.

    `custom` names resources of the operator's own, as in `ray start --resources`: feedback actor
    and gatekeeper each ask for them, and so run only where they are.
    """

    num_cpus: Annotated[float, Field(ge=0)] = 0.1
    num_gpus: Annotated[float, Field(ge=0)] = 0
    custom: dict[str, Annotated[float, Field(gt=0)]] = {}


class GuardsSpec(Section):
    """Limits that act at once, without statistics; None or 0 switches one off.

    `latency_ms` is the longest mean time that weights may take to answer, `failures` the largest
    share of audited questions that they may fail on, `collapse` the share of one label at which a
    classifier counts as collapsed, `jump` the loss of agreement with the anchor that raises doubt.
    """

    latency_ms: Annotated[float | None, Field(gt=0)] = None
    failures: Annotated[float, Field(ge=0, le=1)] = 0.01
    collapse: Annotated[float, Field(ge=0, le=1)] = 0.98
    jump: Annotated[float, Field(ge=0, le=1)] = 0.4


class RetrainSpec(Section):
    """When fresh learners are trained on a dataset, and which; None or false switches one off.

    The best of those that `search` names, by argument of the learner's factory, is a candidate.
    `validation` is the share of the dataset that is held out to choose among them, by time.
    """

    every_s: Annotated[float | None, Field(ge=1)] = None
    after_signals: Annotated[int | None, Field(ge=1)] = None
    on_drift: bool = False
    search: dict[str, list[Any]] = Field(default_factory=dict)
    epochs: Annotated[int, Field(ge=1, le=100)] = 1
    validation: Annotated[float, Field(gt=0, lt=1)] = 0.2
    least_rows: Annotated[int, Field(ge=2)] = 100


class RateSpec(Section):
    """So many a second in the long run, and so many at once (GCRA)."""

    rate: Annotated[float, Field(ge=1e-6, le=1e6)]
    burst: Annotated[int, Field(ge=1, le=10_000_000)]


class LimitsSpec(Section):
    """How much feedback is taken, of all that one API key sends and of one source; null: any.

    A key that names no source is not a source: only its own limit holds. What runs in the process
    itself (`Loop`) is not limited.
    """

    per_key: RateSpec | None = RateSpec(rate=20_000, burst=40_000)
    per_source: RateSpec | None = RateSpec(rate=100, burst=1_000)


SAMPLING = "policies.sampling:VariableUncertainty"
RESPONSE, RATERS = "policies.response:Response", "policies.raters:Raters"
DRIFT, IMPLICIT = "policies.drift:Drift", "policies.implicit:Agreement"
SCORES = "policies.scores:Scores"
OPEN_SHARE = 0.5  # of the time in which an answer takes feedback, before it is looked at


class ObserveSpec(Section):
    """Who looks on, by import path; null switches one off. See `policies.lens`.

    `window_s` is the time after an answer in which people speak; who has not by then is silent. It
    is half of the time in which answers take feedback at most. At most `most_per_s` answers are
    looked at, of more a sample.
    """

    window_s: Annotated[float, Field(gt=0)] = 600.0
    most_per_s: Annotated[float, Field(gt=0)] = 50.0
    response: Annotated[FactorySpec | None, factory_or(RESPONSE)] = FactorySpec(use=RESPONSE)
    raters: Annotated[FactorySpec | None, factory_or(RATERS)] = FactorySpec(use=RATERS)
    drift: Annotated[FactorySpec | None, factory_or(DRIFT)] = FactorySpec(use=DRIFT)
    implicit: Annotated[FactorySpec | None, factory_or(IMPLICIT)] = FactorySpec(use=IMPLICIT)
    scores: Annotated[FactorySpec | None, factory_or(SCORES)] = FactorySpec(use=SCORES)

    def seen_after_s(self, feedback_s: float) -> float:
        """Return after how many seconds an answer is looked at, which takes feedback for so long.

        What was said of it is forgotten after that.
        """
        return min(self.window_s, OPEN_SHARE * feedback_s)

    def lenses(self) -> dict[str, FactorySpec]:
        """Return those that are on, by name."""
        names = ("response", "raters", "drift", "implicit", "scores")
        found = {name: getattr(self, name) for name in names}
        return {name: spec for name, spec in found.items() if spec is not None}


class GatewaysSpec(Section):
    """How many gateways there are: as many as requests under way ask for, within bounds.

    `target_ongoing_requests` is how many of them a gateway shall have in hand, on average.
    """

    min: Annotated[int, Field(ge=1)] = 1
    max: Annotated[int, Field(ge=1)]
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 32

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError("`min` is more than `max`")
        return self


def gateways_kind(value: Any) -> str:
    """Tell in which of its two forms `gateways` is written."""
    return BETWEEN if isinstance(value, dict | GatewaysSpec) else FIXED


class CorsSpec(Section):
    """Which pages of other origins may call this service from a browser; `*` is all.

    An origin is a scheme and a host, and a port where there is one: `https://shop.example.org`.
    """

    origins: list[Annotated[str, Field(pattern=r"^(\*|https?://[^/\s,*]+)$")]] = []
