"""The weights without what was taken back, in the plainest way there is."""

from __future__ import annotations

from collections.abc import Collection

from the_learner import entry_of, steps_of

from online_learner.forget.retract import Retraction, retract
from online_learner.interpret import Interpreter
from online_learner.learners import Model
from online_learner.learners.factory import make_learner
from online_learner.learners.state import pack_state, unpack_state
from online_learner.loop import Loop
from online_learner.schema import Control
from online_learner.stages import Stages, make_lenses, make_signals, make_validation
from online_learner.weigh import Corrections

Snapshot = tuple[bytes, dict[str, object]]


async def by_hand(stages: Stages, without: Collection[str]) -> dict[int, str]:
    """Learn all recorded steps without some signals; returns the digest after each step.

    It reads the store and knows no `Replay`: policies made anew, one lesson after the other. Where
    the steps go back to a version, it goes back to what it was itself at the place of the cut.
    """
    registry, spec = stages.registry, stages.spec
    learner: Model = make_learner(spec)
    reader = Interpreter(make_signals(spec), make_validation(spec), Corrections(make_lenses(spec)))
    kept: dict[int, Snapshot] = {0: (pack_state(learner), reader.memory())}
    digests = {}
    for entry, step in await steps_of(registry):
        if step.reset_to is not None:
            version = await registry.version(step.reset_to)
            blob, memory = kept[version.step]
            told = reader.corrections.state()
            learner = unpack_state(blob, learner)
            reader.remember({**memory, "told": told})
        elif step.tables:
            [(_, fields)] = await registry.store.range(registry.keys.feedback, entry, entry)
            reader.heed(Control.model_validate_json(fields[b"c"]).tables)
        elif not step.retracted and not step.unlearned:
            places = [(one, one) for one in step.released] or [(f"({step.after}", step.to)]
            found = [await registry.store.range(registry.keys.feedback, *at) for at in places]
            entries = [item for part in found for item in part if item[0] not in without]
            batch = reader.read(entries, learner, released=bool(step.released))
            batch.set_aside = dict(step.set_aside)
            learner.learn(batch.keep())
        kept[step.step] = (pack_state(learner), reader.memory())
        digests[step.step] = learner.digest()
    return digests


async def check_unlearned(stages: Stages, without: Collection[str]) -> None:
    """Check that weights, kept versions and any replay are without some signals, bit for bit."""
    trainer, registry = stages.trainer, stages.registry
    wanted = await by_hand(stages, without)
    assert trainer.learner.digest() == wanted[trainer.at.step]
    for version in await registry.versions():
        if version.status != "rejected" and version.step and not version.brought:
            found, learner = await registry.load_version(version.version, stages.learner)
            assert found.state_digest == learner.digest() == wanted[version.step], version.version
    replay = stages.replay_afresh()
    await replay.rewind()
    while await replay.replay_step():
        pass
    assert replay.learner.digest() == trainer.learner.digest()
    assert replay.differs is None
    assert replay.at.digest == trainer.at.digest
    assert replay.at.learned == trainer.at.learned


async def take_back(loop: Loop, *feedback_ids: str, model: str = "web") -> Retraction:
    """Take back what was said."""
    entries = [entry_of(loop, feedback_id) for feedback_id in feedback_ids]
    return await retract(loop.models[model].registry, entries, by="test")
