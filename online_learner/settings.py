"""One YAML file and the environment, checked before anything starts.

`OL_STORE`, `OL_DATA_DIR`, `OL_WINDOW_S`, ... win over the file. Every unknown key is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from online_learner.errors import ConfigError, did_you_mean, known_fields
from online_learner.schema import Task, label_key
from online_learner.secret import STORE_VARIABLES, from_environment, shown

_FIXED, _BETWEEN = "a number", "{min, max}"  # the two forms of `gateways`


def _distinct(labels: list[bool | int | str] | None) -> list[bool | int | str] | None:
    if labels is None:
        return None
    if len(labels) < 2:
        raise ValueError("name two labels or more, or leave `labels` out: they are learned then")
    if len({label_key(label) for label in labels}) < len(labels) or len(set(labels)) < len(labels):
        raise ValueError("two labels are equal, as values (true and 1) or as JSON keys (1 and '1')")
    return labels


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


def _on(rules: Any) -> Any:
    """Put right what YAML makes of an unquoted `on:`, the boolean true."""
    if not isinstance(rules, list):
        return rules
    return [
        {"on" if key is True else key: value for key, value in rule.items()}
        if isinstance(rule, dict)
        else rule
        for rule in rules
    ]


def _factory(value: Any) -> Any:
    return {"use": value} if isinstance(value, str) else value


def _factory_or(use: str) -> BeforeValidator:
    """Let `use` be left out, where only an argument is to differ from the default."""

    def read(value: Any) -> Any:
        return {"use": use, **value} if isinstance(value, dict) else _factory(value)

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
SCORES = "policies.scores:Calibration"


class ObserveSpec(Section):
    """Who looks on, by import path; null switches one off. See `policies.lens`.

    `window_s` is the time after an answer in which people speak; who has not by then is silent. At
    most `most_per_s` answers are looked at, of more a sample.
    """

    window_s: Annotated[float, Field(gt=0)] = 600.0
    most_per_s: Annotated[float, Field(gt=0)] = 100.0
    response: Annotated[FactorySpec | None, _factory_or(RESPONSE)] = FactorySpec(use=RESPONSE)
    raters: Annotated[FactorySpec | None, _factory_or(RATERS)] = FactorySpec(use=RATERS)
    drift: Annotated[FactorySpec | None, _factory_or(DRIFT)] = FactorySpec(use=DRIFT)
    implicit: Annotated[FactorySpec | None, _factory_or(IMPLICIT)] = FactorySpec(use=IMPLICIT)
    scores: Annotated[FactorySpec | None, _factory_or(SCORES)] = FactorySpec(use=SCORES)

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


def _gateways_kind(value: Any) -> str:
    return _BETWEEN if isinstance(value, dict | GatewaysSpec) else _FIXED


class ModelSpec(Section):
    """One model: what it answers, what learns, and who decides about it."""

    task: Task
    learner: Annotated[FactorySpec, BeforeValidator(_factory)] | None = None
    labels: Annotated[list[bool | int | str] | None, AfterValidator(_distinct)] = None
    audit: Annotated[float, Field(ge=0, le=1)] = 0.1
    audit_deadline_s: Annotated[float, Field(gt=0)] = 3600.0
    ask_budget: Annotated[float, Field(ge=0, le=1)] = 0.05  # share of other answers asked about
    ask_for_s: Annotated[float, Field(gt=0)] = 3600.0  # how long such a question stays open
    sampling: Annotated[FactorySpec, _factory_or(SAMPLING)] = FactorySpec(use=SAMPLING)
    observe: ObserveSpec = ObserveSpec()
    exposure: Annotated[float, Field(ge=0, le=0.5)] = 0.0  # share that those under test answer
    gamma: Annotated[float, Field(ge=1, le=100)] = 1.5  # how unequally outcomes may be answered
    malice: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of discordant evidence that may lie
    rater_share: Annotated[float, Field(gt=0, le=1)] = 0.1  # of the evidence, that one may give
    min_raters: Annotated[int, Field(ge=0)] = 0
    guard_segments: list[str] = []  # features or tags
    guards: GuardsSpec = GuardsSpec()
    promotion: PromotionSpec = PromotionSpec()
    signals: str = "policies.signals:Signals"
    categories: dict[str, Literal["up", "down", "ignore"]] = {}
    implicit_weight: Annotated[float, Field(ge=0, le=0.1)] = 0.0
    exploration: ExplorationSpec | None = None
    rules: Annotated[list[dict[str, Any]], BeforeValidator(_on)] = []
    fallback: Any = None  # what a blocked answer returns in the output's place
    output_schema: dict[str, Any] | None = None
    resources: ResourcesSpec = ResourcesSpec()
    on_gpu_missing: Literal["refuse", "cpu", "wait"] = "refuse"
    validation: Annotated[FactorySpec, BeforeValidator(_factory)] = FactorySpec(
        use="policies.validation:Validation"
    )
    limits: LimitsSpec = LimitsSpec()
    public_feedback: bool = False  # the signed id alone may speak about its own answer
    log_inputs: Literal["full", "hashed", "none"] = "full"  # see `online_learner.inputs`
    seed: int = 0
    batch_max: Annotated[int, Field(ge=1, le=8192)] = 512
    publish_s: Annotated[float, Field(ge=0)] = 0.05

    def on_cpu(self) -> Self:
        """Return the same model for a process that has no GPU, and only answers."""
        return self.model_copy(update={"resources": ResourcesSpec(num_gpus=0)})

    @model_validator(mode="after")
    def _fits_the_task(self) -> Self:
        if self.learner is None and self.task != "generation":
            raise ValueError(
                "`learner` is missing: name one, as in `river:linear_model.LogisticRegression`"
            )
        if self.task != "classification" and self.labels is not None:
            raise ValueError(f"`labels` are for classification, and the task is {self.task}")
        if self.exploration is not None and self.task not in ("ranking", "generation"):
            raise ValueError("`exploration` varies the order of options: it is for task: ranking")
        if self.log_inputs == "none" and self.guard_segments:
            raise ValueError(
                "`guard_segments` needs what was asked, and `log_inputs: none` keeps nothing of "
                "it: leave one of them out, or take `log_inputs: hashed`"
            )
        if self.output_schema is not None and self.task != "generation":
            raise ValueError("`output_schema` describes what is generated: for task: generation")
        return self


def _without_password(store: str) -> str:
    """Return a store's URL as it may be written down; only the environment may give a password."""
    url = shown(store)
    if url != store and store not in map(from_environment, STORE_VARIABLES):
        raise ValueError(
            "a password does not belong here: give the whole URL in OL_STORE or REDIS_URL, or in a "
            "file that OL_STORE_FILE or REDIS_URL_FILE names"
        )
    return url


class CorsSpec(Section):
    """Which pages of other origins may call this service from a browser; `*` is all.

    An origin is a scheme and a host, and a port where there is one: `https://shop.example.org`.
    """

    origins: list[Annotated[str, Field(pattern=r"^(\*|https?://[^/\s,*]+)$")]] = []


class Settings(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        env_prefix="OL_",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
    )

    store: Annotated[str, AfterValidator(_without_password)] = "auto"
    data_dir: Path = Path(".online_learner")
    profile: Literal["fast", "plain"] = "fast"
    window_s: Annotated[float, Field(gt=0, le=1e9)] = 86_400.0
    on_store_down: Literal["refuse", "answer_unlogged"] = "refuse"
    logs: Literal["text", "json"] = "text"
    access_log: bool = False  # a line for each request
    max_body_bytes: Annotated[int, Field(ge=1024)] = 1 << 20
    max_version_bytes: Annotated[int, Field(ge=1024)] = 64 << 20  # of a file that is registered
    body_timeout_s: Annotated[float, Field(gt=0, le=3600)] = 10.0  # for all of a body to arrive
    gateways: Annotated[
        Annotated[int, Field(ge=1), Tag(_FIXED)] | Annotated[GatewaysSpec, Tag(_BETWEEN)],
        Discriminator(_gateways_kind),
    ] = 1
    cors: CorsSpec = CorsSpec()
    maxmemory_bytes: Annotated[int, Field(ge=64 << 20)] | None = None  # of the bundled store
    models: dict[Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._-]{0,63}$")], ModelSpec]

    @field_validator(
        "window_s",
        "max_body_bytes",
        "max_version_bytes",
        "body_timeout_s",
        "gateways",
        mode="before",
    )
    @classmethod
    def _no_boolean(cls, value: Any) -> Any:
        if isinstance(value, bool):  # YAML reads `yes` as true, and pydantic reads true as 1
            raise ValueError("must be a number")  # noqa: TRY004
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Let the environment win over the file."""
        return env_settings, init_settings

    @classmethod
    def load(cls, file: Path | str) -> Settings:
        """Read a YAML file; the environment wins over it.

        Raises
        ------
        ConfigError
            The file cannot be read, or a key or value in it is wrong; says which and what to do.
        """
        try:
            document = yaml.safe_load(Path(file).read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read the configuration {file}: {_reason(error)}") from None
        if not isinstance(document, dict):
            raise ConfigError(
                f"{file} must be a mapping of settings, not {type(document).__name__}"
            )
        return cls.parse(document, name=str(file))

    @classmethod
    def parse(cls, document: dict[str, Any], *, name: str = "configuration") -> Settings:
        """Check a document that has been read already; the environment wins over it."""
        document = {str(key): value for key, value in document.items()}
        url = from_environment("OL_STORE")
        if url is None and document.get("store", "auto") == "auto":
            url = from_environment("REDIS_URL")
        if url is not None:
            document["store"] = url
        try:
            return cls(**document)
        except ValidationError as error:
            raise ConfigError(f"{name}: {_explain(error)}") from None
        except SettingsError as error:  # OL_MODELS is not JSON
            raise ConfigError(f"environment: {error}: {error.__cause__}") from error

    def absolute(self) -> Settings:
        """Return the settings with `data_dir` made absolute, so that other processes find it."""
        return self.model_copy(update={"data_dir": self.data_dir.resolve()})

    def model(self, name: str) -> ModelSpec:
        """Return one model's part; `ConfigError` names the models that there are."""
        if name not in self.models:
            raise ConfigError(
                f"no model '{name}' in the configuration.{did_you_mean(name, self.models)}"
            )
        return self.models[name]


def _reason(error: Exception) -> str:
    """Return why a file cannot be read, without the line of it that YAML would repeat."""
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return getattr(error, "strerror", None) or "it is not text"
    return f"line {mark.line + 1}, column {mark.column + 1}: {getattr(error, 'problem', '')}"


def _explain(error: ValidationError) -> str:
    lines = []
    for found in error.errors(include_url=False):
        place = ".".join(str(part) for part in found["loc"] if part not in (_FIXED, _BETWEEN))
        message = found["msg"]
        if found["type"] == "extra_forbidden":
            key = str(found["loc"][-1])
            known = known_fields(_section(found["loc"]), ())
            message = f"unknown key.{did_you_mean(key, known)} Known: {', '.join(known)}."
        lines.append(f"{place}: {message}")
    return "; ".join(lines)


def _section(path: tuple[int | str, ...]) -> type[BaseModel]:
    if path[0] == "gateways" and len(path) > 1:
        return GatewaysSpec
    if path[:1] != ("models",) or len(path) < 3:
        return Settings
    parts: dict[str, type[BaseModel]] = {
        "limits": LimitsSpec,
        "resources": ResourcesSpec,
        "exploration": ExplorationSpec,
        "guards": GuardsSpec,
    }
    return parts.get(str(path[2]) if len(path) > 3 else "", ModelSpec)
