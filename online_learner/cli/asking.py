"""`predict`, `log`, `score` and `feedback`."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from online_learner.cli.completing import ModelName
from online_learner.cli.output import AsJson, connect, pairs, said, show, table
from online_learner.cli.values import KINDS, read_json, read_signal

if TYPE_CHECKING:
    from online_learner.client import Answer

UserId: TypeAlias = Annotated[str | None, typer.Option(help="Who it is.")]
SessionId: TypeAlias = Annotated[str | None, typer.Option(help="In which session.")]
ExternalId: TypeAlias = Annotated[str | None, typer.Option(help="Your own id of the answer.")]
Outputs: TypeAlias = Annotated[list[str], typer.Argument(help="The texts that were generated.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (predict, log, score, feedback):
        app.command()(command)


def predict(
    model: ModelName,
    features: Annotated[
        str, typer.Argument(help="A JSON object; @FILE reads a file, - reads standard input.")
    ],
    *,
    options: Annotated[
        str | None,
        typer.Option(help="What to rank: a JSON list of {id, features}, or @FILE."),
    ] = None,
    top_k: Annotated[int | None, typer.Option(help="Only the K best.")] = None,
    user_id: UserId = None,
    session_id: SessionId = None,
    external_id: ExternalId = None,
    only_id: Annotated[
        bool, typer.Option("--id", help="Print the prediction id alone, to say something about it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Ask a model for one answer."""
    given: dict[str, Any] = read_json(features, dict, '{"name": 1}')
    fields = _named(
        options=options and read_json(options, list, '[{"id": "a", "features": {}}]'),
        top_k=top_k,
        user_id=user_id,
        session_id=session_id,
        external_id=external_id,
    )
    with connect() as client:
        answer = client.predict(model, given, **fields)
    if only_id:
        typer.echo(answer.prediction_id or "")
    else:
        _show_answer(answer, as_json=as_json)


def log(
    model: ModelName,
    prompt: str,
    outputs: Outputs,
    *,
    parameters: Annotated[
        str | None, typer.Option(help="A JSON object: temperature, top_p, ...")
    ] = None,
    model_version: Annotated[str | None, typer.Option(help="Of what generated them.")] = None,
    user_id: UserId = None,
    session_id: SessionId = None,
    external_id: ExternalId = None,
    as_json: AsJson = False,
) -> None:
    """Log an answer that was made elsewhere, so that people can say what they think of it."""
    fields = _named(
        parameters=parameters and read_json(parameters, dict, '{"temperature": 1}'),
        model_version=model_version,
        user_id=user_id,
        session_id=session_id,
        external_id=external_id,
    )
    with connect() as client:
        answer = client.log(model, prompt=prompt, outputs=outputs, **fields)
        _show_answer(answer, as_json=as_json)


def score(model: ModelName, prompt: str, outputs: Outputs, *, as_json: AsJson = False) -> None:
    """Ask a reward model how good some outputs are. Nothing is logged."""
    with connect() as client:
        rewards = client.score(model, prompt=prompt, outputs=outputs)
    rows = sorted(zip(rewards, outputs, strict=True), reverse=True)
    show(rewards, as_json=as_json, text=lambda: table(("reward", "output"), rows))


def feedback(
    prediction_id: str,
    kind: Annotated[str, typer.Argument(help=KINDS)],
    value: Annotated[
        list[str],
        typer.Argument(help="JSON (true, 3.5, '\"3\"'); what is not JSON is a string."),
    ],
    *,
    scale: Annotated[
        tuple[float, float] | None, typer.Option(help="Of a rating: the lowest and the highest.")
    ] = None,
    severity: Annotated[str | None, typer.Option(help="Of a flag: note, warn or block.")] = None,
    detail: Annotated[str | None, typer.Option(help="Of a flag: what was found.")] = None,
    reason: Annotated[list[str] | None, typer.Option(help="Why; may be repeated.")] = None,
    user_id: UserId = None,
    comment: Annotated[str | None, typer.Option(help="In their own words.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check it, accept nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what is right or wrong about an answer."""
    fields = read_signal(kind, value) | _named(
        scale=scale,
        severity=severity,
        detail=detail,
        reasons=reason,
        user_id=user_id,
        comment=comment,
        dry_run=dry_run or None,
    )
    with connect() as client:
        receipt = client.feedback(prediction_id, kind, **fields)
    lines = {
        "status": "it would be accepted" if dry_run else receipt.status,
        "durability": receipt.durability,
        "feedback id": receipt.feedback_id,
    }
    show(asdict(receipt), as_json=as_json, text=lambda: pairs(lines))


def _named(**options: Any) -> dict[str, Any]:
    """Return the options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _show_answer(answer: Answer[Any], *, as_json: bool) -> None:
    lines = {
        "output": said(answer.output),
        "scores": ", ".join(f"{label} {score:.3g}" for label, score in answer.scores.items()),
        "version": f"{answer.version}, step {answer.step}",
        "prediction id": answer.prediction_id,
        "feedback until": answer.feedback_expires_at,
    }
    if answer.flags:
        lines["flags"] = ", ".join(f"{flag.rule} ({flag.severity})" for flag in answer.flags)
    if answer.blocked:
        lines["blocked"] = "by a rule: the output is the fallback"
    show(dict(answer.raw), as_json=as_json, text=lambda: pairs(lines))
