"""`explain` and `receipt`: what became of an answer, and of what was said about it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

from online_learner.cli.output import AsJson, cell, connect, pairs, said, show, table, when

if TYPE_CHECKING:
    from online_learner.client.receipts import ReleasedBy, Weighed

ROUNDED = 1e-3  # by less than that, a factor may be what rounding left


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (explain, receipt):
        app.command()(command)


def explain(prediction_id: str, *, as_json: AsJson = False) -> None:
    """Tell the whole story of one answer: what it saw, who said what, what became of that."""
    with connect() as client:
        story = client.prediction(prediction_id)
    show(story, as_json=as_json, text=lambda: _tell(story))


def _tell(story: dict[str, Any]) -> None:
    record = story["prediction"]
    pairs(_answer(record) | ({"read from": "the archive"} if story.get("archived") else {}))
    if record["options"]:
        table(("option", "score", "propensity", "features"), _option_rows(record))
    for role, shadow in record["shadows"].items():
        weights = f"version {shadow['version']}, step {shadow['step']}"
        typer.echo(f"unseen, {role} ({weights}): {said(shadow['output'])}")
    if story["live_because"] is not None:
        typer.echo(f"It was live because: {story['live_because']['sentence']}")
    if (trained := story.get("trained")) is not None:
        dataset, job = trained["dataset"], trained["job"]
        typer.echo(f"Its weights were trained on dataset {dataset}, by job {job}.")
    if story.get("incomplete"):
        typer.echo(f"Not all of it is told: {story['incomplete']}")
        return
    if not story["feedback"]:
        typer.echo("Nothing has been said about it.")
        return
    replaced = {signal["supersedes"] for signal in story["feedback"]}
    columns = ("kind", "value", "source", "status", "served", "why", "comment")
    table(columns, (_signal_row(signal, replaced) for signal in story["feedback"]))


def _answer(record: dict[str, Any]) -> dict[str, object]:
    from online_learner.chat import shared_context

    found: dict[str, object] = {
        "model": record["model"],
        "answer": said(record["output"]),
        "scores": _listed(record["scores"], " "),
        "by": _by(record),
        "asked for a label": (record["ask"] or {}).get("reason"),
        "user": record["user_id"],
        "features": _listed(shared_context(record["features"]), "="),
    }
    others: dict[str, object] = {
        "made by": record["model_version"],
        "parameters": _listed(record["parameters"], "="),
        "flags": ", ".join(f"{flag['rule']} ({flag['severity']})" for flag in record["flags"]),
        "served instead": cell(record["fallback"]) if record["blocked"] else None,
    }
    return found | {name: value for name, value in others.items() if value}


def _by(record: dict[str, Any]) -> str:
    """Return whose answer it is: of weights of ours, or made elsewhere."""
    if record["role"] == "external" and not record["lineage"]:
        return "none of ours: it was made elsewhere, and imported"
    return f"{record['role']}, version {record['version']}, step {record['step']}"


def _option_rows(record: dict[str, Any]) -> list[tuple[object, ...]]:
    """Return the options in the order in which they were shown, those not shown behind them."""
    options = {option["id"]: option["features"] for option in record["options"]}
    propensities = dict(zip(record["output"], record["propensities"], strict=False))
    order = [*record["output"], *(name for name in options if name not in record["output"])]
    return [
        (name, record["scores"].get(name), propensities.get(name), _listed(options[name], "="))
        for name in order
    ]


def _listed(values: dict[str, Any], sign: str) -> str:
    return ", ".join(f"{name}{sign}{cell(value)}" for name, value in values.items())


def _signal_row(signal: dict[str, Any], replaced: set[str]) -> tuple[object, ...]:
    status = signal["status"]
    if "step" in signal:
        status += f" at step {signal['step']}"
    if signal["feedback_id"] in replaced:
        status += ", superseded"
    value = said(signal["value"])
    why = signal.get("reason") or ", ".join(signal["reasons"])
    served = _served(signal.get("served"))
    return signal["kind"], value, signal["source"], status, served, why, signal["comment"]


def _served(served: dict[str, Any] | None) -> str | None:
    if served is None:
        return None
    return f"{when(served['at'])} by version {served['version']}, step {served['step']}"


def receipt(feedback_id: str, *, as_json: AsJson = False) -> None:
    """Tell what became of one thing that was said: learned when, in which version, served when."""
    with connect() as client:
        fate = client.receipt(feedback_id)
    signal = fate.raw["feedback"]
    learned = None if fate.learned_at is None else f"{when(fate.learned_at)}, at step {fate.step}"
    lines = {
        "said": f"{signal['kind']} {said(signal['value'])}",
        "by": signal["source"],
        "status": fate.status,
        "why": fate.reason,
        "learned": learned,
        "weighs": _weighed(fate.weighed),
        "first version": fate.version,
        "served": _served(fate.raw.get("served")),
        "released": _released(fate.released),
        "superseded by": fate.superseded_by,
    } | _taken_back(fate.raw)
    show(dict(fate.raw), as_json=as_json, text=lambda: pairs(lines))


def _taken_back(fate: Mapping[str, Any]) -> dict[str, object]:
    """Return who took it back, and whether it is still in the weights; empty where nobody did.

    >>> _taken_back({"unlearned": "done", "unlearned_by": {"step": 7}})
    {'taken back': None, 'unlearned': 'done, at step 7'}
    """
    if "unlearned" not in fate:
        return {}
    by, state = fate.get("retracted"), fate["unlearned"]
    reason = f": {by['reason']}" if by and by["reason"] else ""
    if state == "done" and (step := fate.get("unlearned_by")):
        state += f", at step {step['step']}"
    if why := fate.get("unlearned_why"):
        state += f": {why}"
    told = None if by is None else f"{when(by['at'])} by {by['by']}{reason}"
    return {"taken back": told, "unlearned": state}


def _weighed(weighed: Weighed | None) -> str | None:
    """Return what a lesson weighs, and why it is not what the table of signals says.

    >>> from online_learner.client import Weighed
    >>> _weighed(Weighed(raw=1.0, given=0.4, factors={"raters": 0.5}))
    '0.4 instead of 1: raters x 0.5, validation x 0.8'
    """
    if weighed is None:
        return None
    known = math.prod(weighed.factors.values(), start=weighed.raw)
    rest = weighed.given / known if known else 1.0
    factors = {**weighed.factors, **({"validation": rest} if abs(rest - 1) > ROUNDED else {})}
    listed = ", ".join(f"{name} x {cell(float(factor))}" for name, factor in factors.items())
    return f"{cell(float(weighed.given))} instead of {cell(float(weighed.raw))}: {listed}"


def _released(release: ReleasedBy | None) -> str | None:
    if release is None:
        return None
    found = f"{when(release.at)} by {release.by}"
    found += f": {release.reason}" if release.reason else ""
    return f"{found} (the learner comes to it next)" if release.waiting else found
