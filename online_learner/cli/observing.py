"""`bias`, `raters` and `alarms`: who speaks, whom to believe, what has moved."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeAlias

import typer

from online_learner.cli.completing import ModelName
from online_learner.cli.output import AsJson, Row, cell, connect, show, table, visible, when

Part: TypeAlias = str | tuple[Sequence[str], Sequence[Row]]  # a line, or a table
MISREAD = (AttributeError, KeyError, TypeError, ValueError)

BY = ("by", "value", "answers", "spoken of", "from", "to")
ESTIMATES = ("right, as told by", "share", "from", "to", "answers")
RATERS = ("rater", "signals", "agrees", "gold", "weight", "leniency", "scale")
EVENTS = ("event", "seen", "with words", "agrees", "expected", "verdict")
WATCHED = ("watched", "mean", "window", "alarms", "last")
LONG = 40  # characters of a name, in a table
PLACES = ("scores of", "slope", "raw gap", "gap", "answers", "scaled")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (bias, raters, alarms):
        app.command()(command)


def bias(model: ModelName, *, as_json: AsJson = False) -> None:
    """Tell who speaks and who is silent, and whether what they say is corrected for it."""
    with connect() as client:
        found = client.bias(model)

    def text() -> None:
        weighs = ", ".join(found["weighs"]) or "none"
        typer.echo(
            f"{model}: {found['seen']:,} answers were looked at {found['window_s']:g} s after they "
            f"were given. Corrections in force: {weighs}."
        )
        for name, tell in (
            ("response", _response),
            ("implicit", _implicit),
            ("drift", _drift),
            ("scores", _scores),
        ):
            _show(found, name, tell)

    show(found, as_json=as_json, text=text)


def raters(model: ModelName, *, as_json: AsJson = False) -> None:
    """Tell how far each rater agrees with others and with planted questions, and what they weigh.

    A scale below zero is read upside down by that rater.
    """
    with connect() as client:
        found = client.bias(model)
    show(found["raters"], as_json=as_json, text=lambda: _show(found, "raters", _raters))


def alarms(
    model: ModelName,
    *,
    count: Annotated[int, typer.Option(min=1, max=1000, help="How many.")] = 20,
    after: Annotated[
        str | None, typer.Option(help="The id of an alarm: list those after it, oldest first.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List what observers raised, newest first, and what followed from it."""
    with connect() as client:
        found = client.alarms(model, count=count, after=after)

    def text() -> None:
        if not found:
            typer.echo("Nothing has been raised.")
        for alarm in found:
            typer.echo(visible(f"{when(alarm['at'])}  {alarm['about']}: {alarm['sentence']}"))
            if alarm["effects"]:
                typer.echo(visible(f"    {', '.join(alarm['effects'])}"))

    show(found, as_json=as_json, text=text)


# --- sections ---------------------------------------------------------------------------------


def _show(
    found: Mapping[str, Any], name: str, tell: Callable[[Mapping[str, Any]], Iterable[Part]]
) -> None:
    """Print a section; as JSON where it is of another form, as an observer of your own may make it.

    What nobody looks for, or nothing is known of, is said in a line.
    """
    report = found[name]
    if not report:
        typer.echo(f"{name}: nothing yet")
        return
    try:
        parts = list(tell(report))
    except MISREAD:
        parts = [f"{name}: {json.dumps(report, ensure_ascii=False)}"]
    for part in parts:
        if isinstance(part, str):
            typer.echo(visible(part))
        elif part[1]:
            table(*part)


def _response(report: Mapping[str, Any]) -> Iterator[Part]:
    yield f"Spoken of: {rate(report['rate'])} of {cell(report['rate']['n'])}."
    yield BY, [row for by, values in report["by"].items() for row in _by(by, values)]
    estimates = report["estimates"] or {}
    rows = [
        (name, *(_share(told[part]) for part in ("score", "low", "high")), told["n"])
        for name, told in estimates.items()
        if told
    ]
    yield ESTIMATES, rows
    if report["silence"]:
        yield report["silence"]["sentence"]
    yield _weighing(report)


def _by(by: str, values: Any) -> Iterator[Row]:
    if isinstance(values, dict):  # segments, by name
        for name, found in values.items():
            yield from _by(name, found)
        return
    for told in values:
        shares = (_share(told[name]) for name in ("share", "low", "high"))
        yield (by, value_of(told), told["n"], *shares)


def value_of(told: Mapping[str, Any]) -> str:
    """Return of what value a rate is: one of its own, or a range of scores.

    >>> value_of({"value": "spam"}), value_of({"score_low": 0.5, "score_high": None})
    ('spam', '0.5 to -')
    """
    if "score_low" in told:
        return f"{cell(told['score_low'])} to {cell(told['score_high'])}"
    return _short(told.get("value"))


def _short(value: object) -> str:
    """Return what others have named, no longer than a column may be; `--json` has it whole."""
    name = cell(value)
    return name if len(name) <= LONG else f"{name[: LONG - 1]}…"


def rate(told: Mapping[str, Any] | None) -> str:
    """Return a share with its bounds.

    >>> rate({"n": 4, "k": 1, "share": 0.25, "low": 0.05, "high": 0.7}), rate(None)
    ('25.0 % (5.0 % to 70.0 %)', '-')
    """
    if not told or told["share"] is None:
        return "-"
    bounds = f" ({_share(told['low'])} to {_share(told['high'])})"
    return f"{_share(told['share'])}{bounds if told['low'] is not None else ''}"


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _weighing(report: Mapping[str, Any]) -> str:
    told = report["weighing"]
    state = "on" if told["on"] else "off"
    return f"Weighing is {state} ({told['mode']}). {told['sentence']}".rstrip()


def _raters(report: Mapping[str, Any]) -> Iterator[Part]:
    yield RATERS, list(map(_rater_row, report["raters"]))
    if report["others"]:
        yield f"{report['others']:,} others said less."
    yield _weighing(report)


def _rater_row(told: Mapping[str, Any]) -> Row:
    slope = told["slope"]
    scale = None if slope is None else f"{slope:+.2f}{' (inverted)' if told['inverted'] else ''}"
    if slope is None and told["inverted"]:
        scale = "inverted"
    leniency = None if told["leniency"] is None else f"{told['leniency']:+.2f}"
    shares = rate(told["agreement"]), rate(told["gold"])
    return (_short(told["rater"]), told["signals"], *shares, told["weight"], leniency, scale)


def _implicit(report: Mapping[str, Any]) -> Iterator[Part]:
    yield (
        EVENTS,
        [
            (
                _short(told["event"]),
                told["n"],
                told["with_explicit"],
                rate(told["agreement"]),
                _share(told["expected"]),
                told["verdict"],
            )
            for told in report["events"]
        ],
    )
    yield report["sentence"]


def _drift(report: Mapping[str, Any]) -> Iterator[Part]:
    yield (
        WATCHED,
        [
            (
                _short(told["what"]),
                told["mean"],
                told["width"],
                told["alarms"],
                when((told["last_at_ms"] or 0) / 1000),
            )
            for told in report["watched"]
        ],
    )
    effects = dict(report["effects"])
    until_ms = effects.pop("until_ms", None)
    if effects:
        until = "" if until_ms is None else f" until {when(until_ms / 1000)}"
        yield f"In force{until}: {', '.join(f'{k} {cell(v)}' for k, v in effects.items())}"


def _scores(report: Mapping[str, Any]) -> Iterator[Part]:
    yield (
        PLACES,
        [
            (
                told["place"],
                told["slope"],
                _share(told["raw_error"]),
                _share(told["error"]),
                told["n"],
                told["on"],
            )
            for told in report["places"]
        ],
    )
    if (served := report["served"]) and served["n"]:
        gap = _share(served["error"])
        yield f"Served scores are {gap} off on average, over {cell(served['n'])} answers."
