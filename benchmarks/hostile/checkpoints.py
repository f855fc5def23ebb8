"""Mutated checkpoints: what was changed is refused, and what it would have run is not.

A real store holds real checkpoints. Each mutation changes one of them there, somebody loads it as a
learner or a gatekeeper does, and the change is undone. There are two kinds:

- without the secret: bits, lengths, parts of other states. The seal refuses them all, and it counts
  what was parsed before that: nothing may be;
- with the secret, as of a thief: sealed anew. Here stand the allow-list of pickles, the form of a
  state, and the digest that its metadata gives.

Every few hundred mutations are tried in a process of their own, with bounded memory; one that dies
is a crash. What one of them would run leaves a file.
"""

from __future__ import annotations

import asyncio
import logging
import random
import resource
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self, TypeAlias, cast
from unittest import mock

from benchmarks import report
from benchmarks.hostile.mutations import WITH, WITHOUT, Forger, Held
from benchmarks.report import Bar
from online_learner import registry as registry_module
from online_learner.errors import StateError
from online_learner.learners import state as state_module
from online_learner.loop import Loop
from online_learner.replay import Replay
from online_learner.schema import Checkpoint, GateState, Version
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import Fields, open_store
from online_learner.store.embedded import EmbeddedServer

Outcome: TypeAlias = tuple[str, str]  # kind of mutation, what came of it

CHUNK = 250
ROOM_BYTES = 2 << 30  # that a process may take beside what it has
FULL, SHORT = 10_000, 1000

MODELS: dict[str, dict[str, Any]] = {
    "pipeline": {
        "task": "classification",
        "labels": ["ham", "spam"],
        "learner": "river:preprocessing.StandardScaler | linear_model.LogisticRegression",
    },
    "trees": {
        "task": "classification",
        "labels": ["ham", "spam"],
        "learner": {"use": "river.forest:ARFClassifier", "n_models": 2, "seed": 1},
    },
    "text": {
        "task": "classification",
        "labels": ["ham", "spam"],
        "learner": {"use": "torch:text", "buckets": 4096},
    },
    "hidden": {
        "task": "classification",
        "labels": ["ham", "spam"],
        "learner": {"use": "torch:mixed", "hidden": 4, "buckets": 512},
    },
    "ranking": {"task": "ranking", "learner": {"use": "torch:ranking", "buckets": 512}},
}
GATE = "the gate"


# --- trying them ------------------------------------------------------------------------------


class Watching:
    """Counts what is parsed while a state is loaded: whatever would read its bytes or metadata."""

    def __init__(self) -> None:
        self.parsed = 0

    def __enter__(self) -> Self:
        self._patches = [
            mock.patch.object(
                registry_module, "unpack_state", self._count(state_module.unpack_state)
            ),
            *(
                mock.patch.object(
                    kind, "model_validate_json", self._count(kind.model_validate_json)
                )
                for kind in (Checkpoint, Version, GateState)
            ),
        ]
        for patch in self._patches:
            patch.start()
        return self

    def __exit__(self, *error: object) -> None:
        for patch in self._patches:
            patch.stop()

    def _count(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **options: Any) -> Any:
            self.parsed += 1
            return function(*args, **options)

        return counted


async def held_of(stages: Stages, name: str, all_stages: dict[str, Stages]) -> Held:
    """Return what is stored of a model, and genuine states of other things."""
    store, keys = stages.store, stages.registry.keys
    gate = name == GATE
    key = keys.checkpoint("gatekeeper" if gate else "learner")
    others = {
        "a version": await store.hash(keys.version(0)),
        "another writer": await store.hash(keys.checkpoint("learner" if gate else "gatekeeper")),
    }
    for model, other in all_stages.items():
        if other is not stages:
            writer = "gatekeeper" if gate else "learner"
            others[model] = await store.hash(other.registry.keys.checkpoint(writer))
    purpose, record = ("gate", GateState) if gate else ("checkpoint", Checkpoint)
    fields = await store.hash(key)
    return Held(purpose, key, fields, cast("type[Checkpoint]", record), others)


async def load(stages: Stages, name: str) -> str:
    """Load the state as its writer does; returns the digest of what was taken."""
    if name == GATE:
        judge = await stages.gatekeeper.load_judge()
        return judge.state(now=0.0).pack().decode()
    replay = Replay(stages.registry, stages.signals, stages.learner)
    await replay.load_published()
    return replay.learner.digest()


async def attempt(
    stages: Stages, name: str, held: Held, fields: Fields, genuine: str
) -> tuple[str, int]:
    """Put some fields in the place of a state, and load it.

    Returns
    -------
    `refused`, `the same weights`, `other weights` or the name of an error that is not ours; and
    how many times something was parsed.
    """
    store = stages.store
    await store.call("DEL", held.key)
    pairs = [part for pair in fields.items() for part in pair]
    if pairs:
        await store.call("HSET", held.key, *pairs)
    with Watching() as watch:
        try:
            found = await load(stages, name)
        except StateError:
            came = "refused"
        except Exception as error:  # it is what is looked for
            came = f"{type(error).__name__}"
        else:
            came = "the same weights" if found == genuine else "other weights"
    return came, watch.parsed


def chunk(settings: dict[str, Any], name: str, seed: int, count: int) -> Counter[Outcome]:
    """Try some mutations of one state, in a process of its own."""
    logging.disable(logging.CRITICAL)
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + ROOM_BYTES, hard))
    return asyncio.run(try_some(Settings.parse(settings), name, seed=seed, count=count))


async def try_some(settings: Settings, name: str, *, seed: int, count: int) -> Counter[Outcome]:
    """Try mutations of one state, each in the place of the genuine one, which comes back."""
    found: Counter[Outcome] = Counter()
    rng = random.Random(seed)
    model = "pipeline" if name == GATE else name
    mark = settings.data_dir / f"mark {name} {rng.random()}"
    async with await open_store(settings.store) as store:
        loop = Loop(settings, store, _keyring(settings))
        stages = loop.models[model]
        held = await held_of(stages, name, loop.models)
        genuine = await load(stages, name)
        forger = Forger(stages.registry, held, mark)
        for title, fields in mutants(forger, rng, count, gate=name == GATE):
            came, parsed = await attempt(stages, name, held, fields, genuine)
            found[title, came] += 1
            if title.startswith("without") and parsed:
                found[title, "parsed before it was refused"] += 1
        await attempt(stages, name, held, held.fields, genuine)  # put it back
    found["all", "code that was run"] += mark.exists()
    return found


def _keyring(settings: Settings) -> Any:
    from online_learner.ids import Keyring

    return Keyring.load(settings.data_dir)


def mutants(
    forger: Forger, rng: random.Random, count: int, *, gate: bool
) -> Iterator[tuple[str, Fields]]:
    """Yield mutations, each with its kind: half of them without the secret."""
    sealed = {"metadata": WITH["metadata"]} if gate else WITH
    kinds = [(f"without: {title}", mutation) for title, mutation in WITHOUT.items()]
    more = [(f"with: {title}", mutation) for title, mutation in sealed.items()]
    made = 0
    while made < count:
        title, mutation = rng.choice(kinds if made % 2 else more)
        fields = mutation(forger, rng)
        if fields is not None and fields != forger.held.fields:
            made += 1
            yield title, fields


# --- end to end -------------------------------------------------------------------------------


async def teach(loop: Loop, model: str, start: int, count: int) -> None:
    """Ask, correct and learn, always the same of the same numbers."""
    rng = random.Random(start)
    for number in range(start, start + count):
        if loop.settings.models[model].task == "ranking":
            options = [{"id": n, "features": {"text": f"{n} {number % 7}"}} for n in "abc"]
            answer = await loop.predict(model, {"query": f"{number}"}, options=options)
            await loop.feedback(answer["prediction_id"], "selection", rng.choice("abc"))
        else:
            features = {"a": rng.gauss(0, 1), "b": rng.gauss(0, 1), "text": f"word {number % 5}"}
            if loop.models[model].learner.family == "river":
                del features["text"]
            answer = await loop.predict(model, features)
            label = "spam" if features["a"] > 0 else "ham"
            await loop.feedback(answer["prediction_id"], "correction", label)
        await loop.turn(model)


async def restarted(settings: Settings, folder: Path, model: str, title: str) -> bool:
    """Harm a model's newest checkpoint, start anew, go on; tells whether all is as without harm.

    The model `twin` has the same configuration, is taught the same, and is not harmed.
    """
    spec = settings.models[model].model_copy(update={"publish_s": 3600.0})
    both = settings.model_copy(update={"models": {"harmed": spec, "twin": spec}})
    async with await open_store(settings.store) as store:
        await store.call("FLUSHALL")
    async with await Loop.open(both) as loop:
        for name in both.models:
            await teach(loop, name, 0, 20)
            await loop.models[name].trainer.publish()
            await teach(loop, name, 20, 5)
    async with await open_store(settings.store) as store:
        stages = Loop(both, store, _keyring(settings)).models["harmed"]
        held = await held_of(stages, "harmed", {})
        forger = Forger(stages.registry, held, folder / "mark")
        mutation = (WITHOUT | {f"sealed: {t}": m for t, m in WITH.items()})[title]
        fields = mutation(forger, random.Random(1))
        if fields is None:
            return True
        await store.call("DEL", held.key)
        await store.call("HSET", held.key, *(part for pair in fields.items() for part in pair))
    async with await Loop.open(both) as loop:
        for name in both.models:
            await teach(loop, name, 25, 10)
        harmed, twin = (loop.models[name].trainer for name in both.models)
        sound = await loop.models["harmed"].registry.checkpoint() is not None
        same = harmed.learner.digest() == twin.learner.digest()
        learned = harmed.at.learned == twin.at.learned == 35
    return sound and same and learned and not (folder / "mark").exists()


# --- the section ------------------------------------------------------------------------------


def section(full: bool) -> tuple[str, list[Bar]]:
    """Return what came of the mutations, and of starting anew on harmed stores."""
    logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        server = EmbeddedServer.ensure(Path(folder))
        try:
            document = {"store": server.url, "data_dir": folder, "models": MODELS}
            settings = Settings.parse(document)
            asyncio.run(prepare(settings))
            found, crashes = tried(document, FULL if full else SHORT)
            went_on = asyncio.run(_restarts(settings, Path(folder)))
        finally:
            server.stop()
    return _page(found, crashes, went_on)


async def prepare(settings: Settings, *, count: int = 40) -> None:
    """Found the models, and teach each of them something."""
    async with await Loop.open(settings) as loop:
        for model in settings.models:
            await teach(loop, model, 0, count)
            await loop.models[model].trainer.publish()


def tried(document: dict[str, Any], count: int) -> tuple[Counter[Outcome], int]:
    """Try mutations of every state; returns what came of them, and how many processes died."""
    found: Counter[Outcome] = Counter()
    crashes, names = 0, [*MODELS, GATE]
    each = -(-count // len(names))
    work = [(n, i) for n in range(len(names)) for i in range(-(-each // CHUNK))]
    for number, part in work:
        size = min(CHUNK, each - part * CHUNK)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            try:
                found += pool.submit(
                    chunk, document, names[number], 1000 * number + part, size
                ).result()
            except BrokenProcessPool:
                crashes += 1
    return found, crashes


async def _restarts(settings: Settings, folder: Path) -> dict[str, list[bool]]:
    titles = [*WITHOUT, *(f"sealed: {title}" for title in WITH)]
    return {
        model: [await restarted(settings, folder, model, title) for title in titles]
        for model in ("pipeline", "text", "ranking")
    }


GOOD = ("refused", "the same weights")


def _page(
    found: Counter[Outcome], crashes: int, went_on: dict[str, list[bool]]
) -> tuple[str, list[Bar]]:
    titles = sorted({title for title, _ in found} - {"all"}, reverse=True)
    special = ("parsed before it was refused", "code that was run")
    outcomes = sorted({came for _, came in found} - {*GOOD, *special})
    rows = [
        [
            title,
            *(str(found[title, came]) for came in (*GOOD, *outcomes)),
            str(found[title, special[0]]) if title.startswith("without") else "-",
        ]
        for title in titles
    ]
    total = sum(n for (title, came), n in found.items() if title != "all" and came != special[0])
    bad = total - sum(found[title, came] for title in titles for came in GOOD)
    taken = sum(found[t, "the same weights"] for t in titles if t.startswith("without"))
    early = sum(n for (_, came), n in found.items() if came == special[0])
    starts = [good for each in went_on.values() for good in each]
    text = (
        f"{total} mutations of the checkpoints of {len(MODELS)} models, and of "
        "the gate's state, in a real store, loaded as their writers do; `with`: sealed anew with "
        "the right secret. Where the metadata say more than is read, or a bit is turned that "
        "nobody reads, the weights are the same to the last bit.\n\n"
        + report.table(["mutation", *GOOD, *outcomes, special[0]], rows)
        + f"\n\nProcesses that died: {crashes}. Files that an attack left: "
        f"{found['all', special[1]]}.\n\n"
        f"A learner was started {len(starts)} times on a store whose newest checkpoint was harmed, "
        f"after {25} signals, and {10} more came: {sum(starts)} times it learned all of them, and "
        "had the digest of a twin that was not harmed."
    )
    return text, [
        Bar("checkpoints: mutations", total, 10_000),
        Bar(
            "mutated checkpoints that were taken as other weights, or failed", bad, 0, at_most=True
        ),
        Bar("mutations without the secret that were taken", taken, 0, at_most=True),
        Bar("mutations that were parsed before the seal was found bad", early, 0, at_most=True),
        Bar("processes that died", crashes, 0, at_most=True),
        Bar("attacks that ran code", found["all", special[1]], 0, at_most=True),
        Bar(
            "starts on a harmed store that did not go on as if unharmed",
            starts.count(False),
            0,
            at_most=True,
        ),
    ]
