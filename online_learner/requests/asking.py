"""What is asked: predictions, and answers made elsewhere that are to be logged or scored."""

from __future__ import annotations

from typing import Annotated, Any, Self, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from online_learner.errors import Invalid
from online_learner.requests.values import (
    FEATURES,
    MAX_BATCH,
    MAX_LOGPROBS,
    MAX_MAGNITUDE,
    MAX_OPTIONS,
    MAX_PARAMETERS,
    Answered,
    Features,
    Finite,
    Kept,
    KeptNumber,
    KeptObject,
    Moment,
    Name,
    Request,
    Tags,
    Text,
    at_most,
    check_features,
)
from online_learner.schema import Option, canonical


class OptionSent(Request):
    """One of the options to rank."""

    id: Name
    features: Annotated[dict[str, Any], FEATURES] = Field(default_factory=dict)


def _check_options(options: list[OptionSent]) -> list[OptionSent]:
    if not options:
        raise Invalid.at("/options", "is empty: send the options to choose from")
    for index, option in enumerate(options):
        try:
            check_features(option.features)
        except Invalid as error:
            raise error.under("options", index) from None
    return check_distinct(options, "/options")


def check_distinct(options: list[Any], place: str) -> list[Any]:
    """Return the options; raise where two have the same id."""
    seen: set[str] = set()
    for index, option in enumerate(options):
        if option.id in seen:
            raise Invalid.at(f"{place}/{index}/id", "stands there twice")
        seen.add(option.id)
    return options


OptionsSent: TypeAlias = Annotated[
    list[OptionSent],
    Field(json_schema_extra={"minItems": 1, "maxItems": MAX_OPTIONS}, fail_fast=True),
    AfterValidator(_check_options),
    at_most(MAX_OPTIONS),
]


class PredictRequest(Request):
    """Ask for one answer. `options` are for models that rank."""

    features: Features
    options: OptionsSent | None = None
    top_k: Annotated[int, Field(ge=1, le=1000)] | None = None
    session_id: Name | None = None
    user_id: Name | None = None
    external_id: Name | None = None
    tags: Tags


class PredictBatchRequest(Request):
    """Ask for several answers in one call; each instance succeeds or fails by itself."""

    instances: Annotated[list[Any], Field(min_length=1, max_length=MAX_BATCH)]


# --- answers made elsewhere -----------------------------------------------------------------------


class Generated(Request):
    """One output of a generator: text, or JSON."""

    id: Name
    text: Text | None = None
    json_: Annotated[Kept, Field(alias="json")] = None
    logprobs: Annotated[list[KeptNumber], Field(max_length=MAX_LOGPROBS, fail_fast=True)] | None = (
        None
    )

    def option(self) -> Option:
        """Return the output as the record keeps it."""
        return Option(id=self.id, features=self.features(), logprobs=self.logprobs)

    def value(self) -> Any:
        """Return what was generated."""
        return self.json_ if self.text is None else self.text

    def features(self) -> dict[str, Any]:
        """Return what a reward model sees."""
        if self.text is not None:
            return {"text": self.text}
        return {"json": canonical(self.json_)}


class Prompted(Request):
    """What the generator was asked: a prompt, or the messages of a chat."""

    prompt: Text | None = None
    messages: Annotated[list[KeptObject], Field(min_length=1, max_length=1024)] | None = None

    def asked(self) -> dict[str, Any]:
        """Return it as the record keeps it."""
        if (self.prompt is None) == (self.messages is None):
            raise Invalid.at("/prompt", "send either `prompt` or `messages`")
        return {"prompt": self.prompt} if self.messages is None else {"messages": self.messages}


class LogRequest(Prompted):
    """Log an answer that was made elsewhere, so that feedback on it joins.

    For `generation`, either `prompt` or `messages`, with `outputs`; or an OpenAI chat `request` and
    its `response`, unchanged (see `requests.openai`). For other tasks `features`, with `options`
    for models that rank, the `output` (a label, a number, or ids of options in the order shown) and
    its `scores`, where there are any (see `elsewhere`). With `once`, nothing is logged where an
    answer is known by this `external_id`; that one's id is replied. With `dry_run` nothing is
    logged, and there is no id.
    """

    features: Features | None = None
    options: OptionsSent | None = None
    output: Answered = None
    scores: Annotated[dict[Name, Finite], Field(default_factory=dict), at_most(MAX_OPTIONS)]
    outputs: Annotated[list[Generated], Field(max_length=MAX_OPTIONS)] = Field(default_factory=list)
    parameters: Annotated[
        dict[Name, Kept],
        Field(max_length=MAX_PARAMETERS, default_factory=dict),
        at_most(MAX_PARAMETERS),
    ]
    model_version: Name | None = None
    latency_ms: Annotated[float, Field(ge=0, le=MAX_MAGNITUDE)] | None = None
    session_id: Name | None = None
    user_id: Name | None = None
    external_id: Name | None = None
    observed_at: Moment | None = None
    once: bool = False
    dry_run: bool = False
    tags: Tags
    request: KeptObject | None = None
    response: KeptObject | None = None

    @model_validator(mode="after")
    def _is_named(self) -> Self:
        if self.once and self.external_id is None and self.response is None:
            raise ValueError("`once` goes by the external_id: send one")
        return self

    def made(self) -> list[Option]:
        """Return the outputs in the order in which they were given."""
        if not self.outputs:
            raise Invalid.at("/outputs", "is empty: send what was generated")
        _check_outputs(self.outputs)
        return [output.option() for output in self.outputs]


class LogBatchRequest(Request):
    """Log several answers in one call; each is logged or refused by itself.

    A batch is a dry run as soon as one of them is.
    """

    answers: Annotated[list[Any], Field(min_length=1, max_length=MAX_BATCH)]


def _check_outputs(outputs: list[Generated]) -> None:
    for index, output in enumerate(outputs):
        if (output.text is None) == ("json_" not in output.model_fields_set):
            raise Invalid.at(f"/outputs/{index}", "has either `text` or `json`")
    check_distinct(outputs, "/outputs")


def _numbered(outputs: Any) -> Any:
    """Give outputs that are mere texts their place as the id."""
    if not isinstance(outputs, list):
        return outputs
    return [{"id": str(i), "text": o} if isinstance(o, str) else o for i, o in enumerate(outputs)]


class ScoreRequest(Prompted):
    """Ask a reward model how good some outputs are. Nothing is logged."""

    outputs: Annotated[
        list[Generated],
        BeforeValidator(_numbered, json_schema_input_type=list[Text | Generated]),
        at_most(MAX_OPTIONS),
        Field(min_length=1, max_length=MAX_OPTIONS),
    ]

    def options(self) -> list[dict[str, Any]]:
        """Return the features of each output."""
        _check_outputs(self.outputs)
        return [output.features() for output in self.outputs]
