"""One model: what it answers, what learns, who looks on, and who decides about it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from online_learner.schema import Task, label_key
from online_learner.settings.parts import (
    SAMPLING,
    ExplorationSpec,
    FactorySpec,
    GuardsSpec,
    LimitsSpec,
    ObserveSpec,
    PromotionSpec,
    ResourcesSpec,
    RetrainSpec,
    Section,
    factory,
    factory_or,
    on_key,
)

ARCHIVE_SCHEMES = ("file", "s3", "gs", "gcs", "abfs", "abfss", "hdfs")


def _distinct(labels: list[bool | int | str] | None) -> list[bool | int | str] | None:
    if labels is None:
        return None
    if len(labels) < 2:
        raise ValueError("name two labels or more, or leave `labels` out: they are learned then")
    if len({label_key(label) for label in labels}) < len(labels) or len(set(labels)) < len(labels):
        raise ValueError("two labels are equal, as values (true and 1) or as JSON keys (1 and '1')")
    return labels


def _archive(where: str | None) -> str | None:
    """Return a place that every process finds: what is relative is so to where this one runs."""
    if where is None or where == "auto":
        return where
    scheme, is_url, rest = where.partition("://")
    if not is_url:
        if not where.strip():
            raise ValueError("is empty: take auto, a path or a URL, or null for no archive")
        return str(Path(where).expanduser().absolute())
    if scheme not in ARCHIVE_SCHEMES or not rest:
        known = ", ".join(f"{name}://" for name in ARCHIVE_SCHEMES)
        raise ValueError(f"is no URL of a place for files: take a path, or {known}")
    if "@" in rest.partition("/")[0] or (scheme != "file" and "@" in rest):
        raise ValueError(
            "has credentials in it, which would stand in the configuration: leave them out, and "
            "give them in the environment (AWS_ACCESS_KEY_ID, GOOGLE_APPLICATION_CREDENTIALS, ...)"
        )
    return where


class ModelSpec(Section):
    """One model: what it answers, what learns, and who decides about it."""

    task: Task
    learner: Annotated[FactorySpec, BeforeValidator(factory)] | None = None
    labels: Annotated[list[bool | int | str] | None, AfterValidator(_distinct)] = None
    audit: Annotated[float, Field(ge=0, le=1)] = 0.1
    audit_deadline_s: Annotated[float, Field(gt=0)] = 3600.0
    ask_budget: Annotated[float, Field(ge=0, le=1)] = 0.05  # share of other answers asked about
    ask_for_s: Annotated[float, Field(gt=0)] = 3600.0  # how long such a question stays open
    gold_share: Annotated[float, Field(ge=0, le=1)] = 0.1  # of what is leased, that is planted
    sampling: Annotated[FactorySpec, factory_or(SAMPLING)] = FactorySpec(use=SAMPLING)
    observe: ObserveSpec = ObserveSpec()
    exposure: Annotated[float, Field(ge=0, le=0.5)] = 0.0  # share that those under test answer
    gamma: Annotated[float, Field(ge=1, le=100)] = 1.5  # how unequally outcomes may be answered
    malice: Annotated[float, Field(ge=0, lt=1)] = 0.0  # share of discordant evidence that may lie
    rater_share: Annotated[float, Field(gt=0, le=1)] = 0.1  # of the evidence, that one may give
    min_raters: Annotated[int, Field(ge=0)] = 0
    guard_segments: list[str] = Field(default_factory=list)  # features or tags
    guards: GuardsSpec = GuardsSpec()
    promotion: PromotionSpec = PromotionSpec()
    signals: str = "policies.signals:Signals"
    categories: dict[str, Literal["up", "down", "ignore"]] = Field(default_factory=dict)
    implicit_weight: Annotated[float, Field(ge=0, le=0.1)] = 0.0
    exploration: ExplorationSpec | None = None
    rules: Annotated[list[dict[str, Any]], BeforeValidator(on_key)] = Field(default_factory=list)
    fallback: Any = None  # what a blocked answer returns in the output's place
    output_schema: dict[str, Any] | None = None
    resources: ResourcesSpec = ResourcesSpec()
    on_gpu_missing: Literal["refuse", "cpu", "wait"] = "refuse"
    validation: Annotated[FactorySpec, BeforeValidator(factory)] = FactorySpec(
        use="policies.validation:Validation"
    )
    limits: LimitsSpec = LimitsSpec()
    public_feedback: bool = False  # the signed id alone may speak about its own answer
    archive: Annotated[str | None, AfterValidator(_archive)] = (
        "auto"  # where the log goes on file: a path, a URL; null: nowhere
    )
    unlearn_horizon: Annotated[float, Field(ge=0)] = 0.0  # seconds; see `retain`
    retrain: RetrainSpec = RetrainSpec()
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
