"""Labels in the evidence: right ones, those of each role, and losses, without what users sent."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from online_learner.evidence import Terms
from online_learner.ids import Keyring
from online_learner.judge import LEAST_SCORE, Judge
from online_learner.loop import Loop
from online_learner.naming import NAME_CHARS, label_names
from online_learner.schema import Audit, Output, Said, Settled, Shadow, label_key
from online_learner.settings import ModelSpec, Settings

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]

KEYRING = Keyring({1: b"k" * 32})
UNLABELLED = {"labels": None, "audit": 1.0, "publish_s": 0.0}
BOTH = Keyring({1: b"k" * 32, 2: b"l" * 32})


def spec(**fields: Any) -> ModelSpec:
    """Return a configuration."""
    return ModelSpec.model_validate({"task": "classification", "learner": "torch:text", **fields})


def shadow(output: Output, scores: dict[str, float] | None = None, **fields: Any) -> Shadow:
    """Return what a role answered."""
    return Shadow(version=1, lineage=1, step=1, output=output, scores=scores or {}, **fields)


def settled(roles: dict[str, Shadow], said: Said, **options: Any) -> Settled:
    """Let a judge settle one audit."""
    judge = Judge(terms=Terms(), deadline_s=60.0, **options)
    judge.see_audit("1000-0", Audit(generation=1, roles=roles))
    judge.see_signal("1000-0", said, rater="x", at_ms=1000.0)
    [(_, found)] = judge.settle(now=1000.0)
    return found


# --- names ------------------------------------------------------------------------------------


def test_declared_labels_go_by_their_own_names() -> None:
    """What the configuration names is nobody's secret; what it does not is hashed."""
    name = label_names(spec(labels=[False, True]), KEYRING, "web")
    assert name is not None
    assert (name(False), name(True)) == ("false", "true")
    assert name("something that a user wrote") not in {"false", "true"}


def test_learned_labels_are_a_keyed_hash() -> None:
    """The hash is short, of this model and key, and stays when keys are rotated."""
    name, again, other, rotated, another = (
        label_names(spec(), keyring, model)
        for keyring, model in [
            (KEYRING, "web"),
            (KEYRING, "web"),
            (KEYRING, "mail"),
            (BOTH, "web"),
            (Keyring({1: b"m" * 32}), "web"),
        ]
    )
    assert name
    assert again
    assert other
    assert rotated
    assert another
    text = "the complaint of Mrs Miller"
    assert len(name(text)) == NAME_CHARS
    assert name(text) == again(text) == rotated(text)
    assert len({name(text), other(text), another(text), name("else")}) == 4


@pytest.mark.parametrize("task", ["regression", "ranking"])
def test_other_tasks_have_no_labels(task: str) -> None:
    """Numbers and orders are not named."""
    made = ModelSpec.model_validate({"task": task, "learner": "torch:text"})
    assert label_names(made, KEYRING, "web") is None


# --- what settles -----------------------------------------------------------------------------


def test_a_settled_audit_has_labels_and_losses() -> None:
    """The right label, each role's, and minus the log of what each gave to the right one."""
    roles = {
        "champion": shadow("ham", {"ham": 0.8, "spam": 0.2}),
        "challenger:2": shadow("spam", {"ham": 0.0, "spam": 1.0}),
        "latest": shadow("ham"),
        "anchor": shadow(None, failed=True),
    }
    found = settled(roles, Said(right="ham"), names=label_key)
    most = round(-math.log(LEAST_SCORE), 5)
    assert found.right == "ham"
    assert found.outputs == {"champion": "ham", "challenger:2": "spam", "latest": "ham"}
    assert found.losses == {
        "champion": pytest.approx(-math.log(0.8), abs=1e-5),
        "challenger:2": most,
        "anchor": most,
    }


@pytest.mark.parametrize(
    ("said", "options"),
    [
        (Said(wrong="ham"), {"names": label_key}),
        (Said(right="ham"), {}),
        (Said(right=3.0), {"names": label_key}),
        (Said(right=["a", "b"]), {"names": label_key}),
    ],
    ids=["which one is not told", "not named", "a number", "an order"],
)
def test_without_a_right_label_there_is_none(said: Said, options: dict[str, Any]) -> None:
    """Where no label was told, or the model has none, the entry stays as small as it was."""
    found = settled({"champion": shadow("ham", {"ham": 0.8, "spam": 0.2})}, said, **options)
    assert (found.right, found.outputs, found.losses) == (None, {}, {})
    assert b"losses" not in found.pack()


async def test_no_text_of_users_is_in_the_evidence(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """A learned label is somebody's text: the evidence stream holds a hash of it, no more."""
    loop = await open_loop(make_settings(topic=UNLABELLED))
    secret = "Mrs Miller of 7 Elm Street"
    for _ in range(3):
        answer = await loop.predict("topic", {"a": 1.0})
        await loop.feedback(answer["prediction_id"], "correction", secret)
        await loop.turn("topic")
    registry = loop.stages("topic").registry
    evidence = await loop.store.range(registry.keys.evidence)
    kept = b"".join(fields[b"e"] for _, fields in evidence)
    found = Settled.model_validate_json(evidence[-1][1][b"e"])
    assert found.right is not None
    assert found.right == found.outputs["latest"]
    assert b"Miller" not in kept
