"""Weights that were trained elsewhere: read with care, checked, and taken in as a version.

A file is what `save` writes of any learner, a pickle of a River model, or the safetensors of a
torch head. It is read by the learner that the configuration names, so that it can hold nothing else
than a state of that one; what is stored is written anew, and never the bytes that came.

Where the model has learned nothing yet, the version answers at once, and the learner goes on from
it: it is told by a control entry, like any reset, so that a replay meets it at the same place.
Else, or where that is wanted, the version is a candidate, which the promotion policy treats like
any other. What a training job of this model's own has made comes the same way.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from pydantic import ValidationError

from online_learner.errors import Conflict, Invalid, StateError, Unavailable
from online_learner.learners import Learner, Model, Ranker
from online_learner.learners.state import M, pack_state, unpack_state
from online_learner.registry import Registry
from online_learner.requests import Features
from online_learner.schema import (
    Aliases,
    Control,
    Prediction,
    Registered,
    Trained,
    Verdict,
    Version,
    finite,
)

Becomes: TypeAlias = Literal["champion", "candidate"]
Origin: TypeAlias = Registered | Trained

PROBES = 20  # of the latest questions, that it has to answer
TRIES = 5  # a learner may cut a version meanwhile
OURS, PICKLE, SAFETENSORS = b"OLS1", b"\x80", b"{"
_SAFETENSORS_AT = 8
MAX_NOTE = 1000  # characters


@dataclass(frozen=True, slots=True)
class Brought:
    """What became of a file.

    `becomes` tells whether the version answers at once, or is tested first; `duplicate`, that the
    same file had been registered before, and nothing was done.
    """

    version: Version
    becomes: Becomes
    sentence: str
    duplicate: bool = False


def save(model: Model, path: Path | str) -> None:
    """Write what a learner has learned to a file that `online-learner register` takes.

    >>> import tempfile
    >>> from river.linear_model import LogisticRegression
    >>> from online_learner.learners.river import RiverLearner
    >>> learner = RiverLearner(LogisticRegression(), task="classification", labels=[False, True])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(learner, Path(folder) / "model.bin")
    ...     Path(folder, "model.bin").read_bytes()[:4]
    b'OLS1'
    """
    Path(path).write_bytes(pack_state(model))


def read_model(blob: bytes, like: M) -> M:
    """Return the learner in a file, as one like `like`, that has learned something.

    Raises
    ------
    Invalid
        It is no file of a model, or of another model than `like`; says what to do.
    """
    if not type(like).__module__.startswith("online_learner.learners."):
        raise Invalid(
            f"a {type(like).__name__} reads its own files, and whether it does so safely is not "
            "known here: have the factory in the configuration return the fitted one instead"
        )
    try:
        found = _opened(blob, like)
        found = like.from_bytes(found.to_bytes())  # as whoever answers will read it
        fitted = found.fitted
    except StateError as error:
        raise Invalid(f"this file is not of this model: {error}", code="not_this_model") from error
    except Invalid:
        raise
    except Exception as error:  # whatever a model raises that lacks a part
        raise Invalid(
            f"the model in this file is damaged ({type(error).__name__}): write the file anew",
            code="not_this_model",
        ) from error
    if not fitted:
        raise Invalid("the model in this file has learned nothing yet", code="not_this_model")
    _check_labels(found, {})
    return found


def _opened(blob: bytes, like: M) -> M:
    if blob.startswith(OURS):
        return unpack_state(blob, like)
    if blob.startswith(PICKLE) and like.family == "river":
        return cast("M", cast("Any", like).from_pickle(blob))
    if blob[_SAFETENSORS_AT:].startswith(SAFETENSORS) and like.family != "river":
        return like.from_bytes(blob)
    wanted = "a pickle of a River model" if like.family == "river" else "its safetensors"
    raise Invalid(
        f"this file holds no model of the family '{like.family}': send {wanted}, or what "
        "online_learner.bring.save writes",
        code="not_this_model",
    )


def _check_labels(found: Model, features: Features) -> None:
    """Raise `Invalid` where it answers these features with labels that are not configured."""
    if found.family != "river":
        return  # the labels of others are part of their state
    learner = cast("Any", found)
    strangers = learner.strangers(features)
    if strangers:
        raise Invalid(
            f"the model knows {len(strangers)} labels that the configuration does not have: that "
            f"has {learner.labels}. Fit it on those, as they are written there",
            code="not_this_model",
        )


async def bring(
    registry: Registry,
    like: Learner | Ranker,
    blob: bytes,
    *,
    by: str,
    now: float,
    note: str = "",
    candidate: bool = False,
    dry_run: bool = False,
) -> Brought:
    """Take in the weights of a file as a version.

    Parameters
    ----------
    like
        The learner as the configuration makes it.
    by, note
        Who brings it, and what they say of it.
    candidate
        Have it tested first, even where the model has learned nothing yet.
    dry_run
        Check all of it, and take in nothing.

    Raises
    ------
    Invalid
        The file holds no model of this kind, or one that cannot answer what people ask.
    Conflict
        Versions were cut all the while; try again.
    """
    await _check_ready(registry)
    learner = await asyncio.to_thread(read_model, blob, like)
    await _check_answers(registry, learner)
    origin = Registered(by=by, note=note, sha256=hashlib.sha256(blob).hexdigest())
    return await _bring(registry, learner, origin, now=now, candidate=candidate, dry_run=dry_run)


async def bring_trained(
    registry: Registry,
    learner: Learner | Ranker,
    trained: Trained,
    *,
    now: float,
    dry_run: bool = False,
) -> Brought:
    """Take in weights that were trained anew, as a candidate.

    Parameters
    ----------
    learner
        It has learned, and is as the configuration makes it.
    trained
        On which dataset, by which job, and what was tried.

    Raises
    ------
    Invalid
        It cannot answer what people ask, or has learned nothing.
    Conflict
        Versions were cut all the while; try again.
    """
    await _check_ready(registry)
    if not await asyncio.to_thread(lambda: learner.fitted):
        raise Invalid("these weights have learned nothing", code="not_this_model")
    await _check_answers(registry, learner)
    return await _bring(registry, learner, trained, now=now, candidate=True, dry_run=dry_run)


async def _check_ready(registry: Registry) -> None:
    if await registry.aliases() is None:
        raise Unavailable(f"'{registry.model}' has no weights yet", code="not_ready")


async def _bring(
    registry: Registry,
    learner: Learner | Ranker,
    origin: Origin,
    *,
    now: float,
    candidate: bool,
    dry_run: bool,
) -> Brought:
    packed, digest = await asyncio.to_thread(lambda: (pack_state(learner), learner.digest()))
    for _ in range(TRIES):
        taken = await _take_in(
            registry, packed, digest, origin, now=now, candidate=candidate, dry_run=dry_run
        )
        if taken is not None:
            return taken
    raise Conflict("versions are being cut all the while: try again")


async def _take_in(
    registry: Registry,
    packed: bytes,
    digest: str,
    origin: Origin,
    *,
    now: float,
    candidate: bool,
    dry_run: bool,
) -> Brought | None:
    """Write the version; returns None where somebody else was quicker."""
    before = await registry.aliases()
    assert before is not None
    versions = await registry.versions()
    for known in versions:
        if _is_same(known, origin, digest) and _stands(before, known):
            return _again(before, known)
    last = await registry.last_version()
    blank = not candidate and await _is_blank(registry, before)
    after = before.pulled_to(last + 1) if blank else before
    version = Version(
        version=last + 1,
        lineage=after.lineage,
        step=0,
        offset="0-0",
        digest="",
        state_digest=digest,
        parent=before.reference,
        status="blessed" if blank else "candidate",
        cut_at=now,
        registered=origin if isinstance(origin, Registered) else None,
        trained=origin if isinstance(origin, Trained) else None,
    )
    taken = Brought(version, "champion" if blank else "candidate", _told(version, before))
    head: dict[str, Any] = {"epoch": str(before.epoch), "after": str(last)}
    head |= {"number": str(version.version)}
    head["version"] = registry.seal(f"version {version.version}", version, blob=packed).fields()
    if blank:
        head |= _enthroned(registry, after.model_copy(update={"epoch": before.epoch + 1}), taken)
    if dry_run:
        return taken
    keys = registry.keys
    names = [keys.aliases, keys.version(version.version), keys.feedback, keys.verdicts]
    reply = await registry.store.run("register", names, [json.dumps(head), packed])
    return taken if reply == b"ok" else None


def _enthroned(registry: Registry, after: Aliases, taken: Brought) -> dict[str, Any]:
    """Return what makes a version the champion, and the learner go on from it."""
    version = taken.version
    assert version.registered is not None
    verdict = Verdict(
        action="register",
        by=version.registered.by,
        sentence=taken.sentence,
        version=version.version,
        reference=version.parent,
        epoch=after.epoch,
        at=version.cut_at,
    )
    control = Control(
        action="reset",
        to_version=version.version,
        lineage=after.lineage,
        reason=verdict.sentence,
    )
    return {
        "aliases": registry.seal_aliases(after),
        "verdict": verdict.pack().decode(),
        "control": control.model_dump_json(),
        "publish": registry.keys.swap,
    }


def _is_same(known: Version, origin: Origin, digest: str) -> bool:
    """Tell whether a version is of the same file; of what was trained, whether it is the same."""
    if isinstance(origin, Registered):
        return known.registered is not None and known.registered.sha256 == origin.sha256
    return known.state_digest == digest


def _stands(before: Aliases, version: Version) -> bool:
    """Tell whether a version answers, or is tested: a candidate of an earlier lineage is not."""
    current = version.status == "candidate" and version.lineage == before.lineage
    return current or version.version in (before.champion, before.anchor, *before.challengers)


def _again(before: Aliases, version: Version) -> Brought:
    becomes: Becomes = "champion" if before.champion == version.version else "candidate"
    sentence = f"This is version {version.version} already."
    return Brought(version, becomes, sentence, duplicate=True)


def _told(version: Version, before: Aliases) -> str:
    if version.status == "blessed":
        return (
            f"Version {version.version} answers from now on, and the learner learns on from it: it "
            "was registered before anything had been learned."
        )
    sentence = (
        f"Version {version.version} is a candidate: the promotion policy treats it like a snapshot "
        f"of the learner's, and `promote` has it answer at once."
    )
    return sentence + (" Nothing is promoted before `thaw`." if before.frozen else "")


async def _is_blank(registry: Registry, aliases: Aliases) -> bool:
    """Tell whether nothing was learned yet, so that nothing is lost by beginning anew."""
    champion = await registry.version(aliases.champion)
    published = await registry.published()
    learned = 0 if published is None else published.learned
    return champion.untrained and not learned and not aliases.frozen


async def _check_answers(registry: Registry, learner: Learner | Ranker) -> None:
    """Raise `Invalid` where it cannot answer what people have asked the model of late."""
    found = await registry.store.latest(registry.keys.predictions, PROBES)
    asked = []
    for _, fields in found:
        try:
            record = Prediction.model_validate_json(fields[b"r"])
        except (KeyError, ValidationError):
            continue
        if record.inputs != "none":
            asked.append(record)
    await asyncio.to_thread(_answer_all, learner, asked)


def _answer_all(learner: Learner | Ranker, asked: Sequence[Prediction]) -> None:
    for record in asked:
        try:
            numbers = _answer(learner, record)
        except Exception as error:
            raise Invalid(
                "it cannot answer what this model was asked of late "
                f"({type(error).__name__}): fit it on the features that are sent",
                code="not_this_model",
            ) from error
        if not finite(numbers):
            raise Invalid("its answers are not finite numbers", code="not_this_model")
        _check_labels(learner, record.features)


def _answer(learner: Learner | Ranker, record: Prediction) -> Sequence[float]:
    if isinstance(learner, Ranker):
        return learner.score(record.features, [option.features for option in record.options])
    [answer] = learner.predict([record.features])
    output = answer.output
    number = isinstance(output, int | float) and not isinstance(output, bool)
    return [*answer.scores.values(), *([float(cast("float", output))] if number else [])]
