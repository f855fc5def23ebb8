"""A person is erased while others go on, and then searched for everywhere.

Their text is planted wherever text can be: features, comments, corrections, tags, sessions, ids.
Others ask and speak meanwhile, and the learner learns. Then everything is searched for it: each key
of the store, what is packed in it as well; the files of the store, as raw bytes, and once more with
its own compression; the files of the archive, decoded; a dataset compiled afterwards. The weights
have to be those of a replay from the first version in which these signals were never said.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
import zlib
from pathlib import Path
from typing import Any

from pyarrow import parquet

from benchmarks.report import Bar, table
from online_learner.archive.place import Place
from online_learner.dataset.compiling import compile_dataset
from online_learner.dataset.query import Query
from online_learner.dataset.running import Here
from online_learner.dataset.versions import Versions
from online_learner.forget.erase import Eraser, Wish
from online_learner.loop import Loop
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store.embedded import EmbeddedServer

PLANTED = "Zanzibarquux"
USER = f"ada-{PLANTED}"
SHORT, FULL = 10_000, 50_000  # answers, before
USERS = 200
MODEL = "topic"
SPEC: dict[str, Any] = {
    "task": "classification",  # labels are learned, so that a correction can be any text
    "learner": "benchmarks.erased:learner",
    "audit": 0.1,
}
WORDS = ("invoice", "refund", "printer", "network", "password", "screen", "delivery", "coupon")
LABELS = ("billing", "bug", "praise")


def section(full: bool) -> tuple[str, list[Bar]]:
    """Erase one of many, under load, and search for what they sent."""
    with tempfile.TemporaryDirectory(prefix="ol-bench-") as folder:
        found = asyncio.run(_run(Path(folder), FULL if full else SHORT))
    left = sum(found["left"].values())
    rows = [(where, f"{n:,}") for where, n in found["left"].items()]
    told = [
        ("answers and signals before", f"{found['before']:,}"),
        ("of these theirs", f"{found['theirs']:,}"),
        ("answers and signals of others meanwhile", f"{found['meanwhile']:,}"),
        ("erased within, s", f"{found['took_s']:.1f}"),
        ("longest answer meanwhile, ms", f"{found['slowest_ms']:.0f}"),
        ("unlearned within, s", f"{found['unlearned_s']:.1f}"),
    ]
    bars = [
        Bar("Places where their text is found", left, 0, at_most=True),
        Bar("Answers and signals lost meanwhile", found["lost"], 0, at_most=True),
        Bar("Weights are those of a replay without them", int(found["same"]), 1),
    ]
    return f"{table(('what', 'n'), told)}\n\n{table(('searched', 'found'), rows)}", bars


async def _run(folder: Path, answers: int) -> dict[str, Any]:
    server = EmbeddedServer.ensure(folder)
    settings = Settings.parse(
        {"store": server.url, "data_dir": folder, "models": {MODEL: SPEC}, "window_s": 86_400}
    )
    try:
        async with await Loop.open(settings) as loop:
            return await _erased(loop, folder, answers)
    finally:
        server.stop()


async def _erased(loop: Loop, folder: Path, answers: int) -> dict[str, Any]:
    stages, rng = loop.stages(MODEL), random.Random(0)
    await loop.store.call("CONFIG", "SET", "rdbcompression", "no")  # so that bytes can be searched
    for n in range(answers // 50):
        await asyncio.gather(*(_one(loop, rng, n * 50 + i) for i in range(50)))
        if n % 10 == 0:
            await loop.learn(MODEL)
    await loop.turn(MODEL)
    assert stages.archiver is not None
    await stages.archiver.flush()
    if not all([await _keys(stages), _files(folder), _archive(folder)]):
        raise RuntimeError("the planted text is not where it should be found before")
    counted = await _count(stages)
    meanwhile = _Meanwhile(loop, rng)
    load = asyncio.create_task(meanwhile.run())
    started = time.monotonic()
    kept = await Eraser.of(stages, USER, datasets=_datasets(stages)).erase(Wish())
    took_s = time.monotonic() - started
    meanwhile.going = False
    await load
    lost = counted + meanwhile.sent - await _count(stages)
    started = time.monotonic()
    while await loop.store.call("HLEN", stages.registry.keys.unlearned) < sum(
        kept.proof.erased[stream] for stream in ("feedback",)
    ):
        await loop.turn(MODEL)
    unlearned_s = time.monotonic() - started
    await loop.turn(MODEL)
    await Eraser.of(stages, USER).erase(Wish())  # the store's log, without the old weights
    left = {"keys of the store": await _keys(stages)}
    left["files of the store, raw"] = await _gone(folder)
    await loop.store.call("CONFIG", "SET", "rdbcompression", "yes")
    left["files of the archive"] = _archive(folder)
    left["a dataset compiled after"] = await _compiled(stages)
    return {
        "left": left,
        "before": counted,
        "theirs": kept.proof.erased["predictions"] + kept.proof.erased["feedback"],
        "meanwhile": meanwhile.sent,
        "lost": lost,
        "took_s": took_s,
        "slowest_ms": meanwhile.slowest_s * 1000,
        "unlearned_s": unlearned_s,
        "same": await _same(stages),
    }


class _Meanwhile:
    """What others ask and say while somebody is erased."""

    def __init__(self, loop: Loop, rng: random.Random) -> None:
        self.going = True
        self.sent = 0
        self.slowest_s = 0.0
        self._loop, self._rng = loop, rng

    async def run(self) -> None:
        """Ask and speak until told to stop; the learner learns."""
        while self.going:
            started = time.monotonic()
            self.sent += await _one(self._loop, self._rng, 1 + self._rng.randrange(USERS - 1))
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
            if self.sent % 100 < 2:
                await self._loop.learn(MODEL)


async def _one(loop: Loop, rng: random.Random, number: int) -> int:
    """Have one person ask and, mostly, speak; returns how many entries that makes."""
    theirs = number % USERS == 0
    planted = f" {PLANTED}" if theirs else ""
    user = USER if theirs else f"user-{number % USERS}"
    answer = await loop.predict(
        MODEL,
        {"text": f"{rng.choice(WORDS)} {rng.choice(WORDS)}{planted}"},
        user_id=user,
        session_id=f"s-{user}",
        tags={"from": f"page{planted}"},
    )
    if not theirs and rng.random() < 0.5:
        return 1
    value = PLANTED if theirs and rng.random() < 0.5 else rng.choice(LABELS)
    more = {"comment": f"says{planted}"} if theirs else {}
    await loop.feedback(answer["prediction_id"], "correction", value, user_id=user, **more)
    return 2


# --- searching --------------------------------------------------------------------------------


async def _keys(stages: Stages) -> int:
    """Return how many keys of the store have the text, what is compressed in them unpacked."""
    store, count = stages.store, 0
    for key in await store.call("KEYS", "*"):
        dumped: bytes = await store.call("DUMP", key)
        count += PLANTED.encode() in dumped or PLANTED.encode() in key or await _packed(store, key)
    return count


async def _packed(store: Any, key: bytes) -> bool:
    if await store.call("TYPE", key) != b"hash":
        return False
    memory = await store.call("HGET", key, "memory")
    try:
        return PLANTED.encode() in zlib.decompress(memory)
    except (TypeError, zlib.error):
        return False


def _files(folder: Path) -> int:
    """Return in how many files of the store the text is, as raw bytes."""
    files = [path for path in (folder / "store").rglob("*") if path.is_file()]
    return sum(PLANTED.encode() in path.read_bytes() for path in files)


async def _gone(folder: Path) -> int:
    """Return in how many it is once the server has unlinked old ones, which it does by the way."""
    for _ in range(100):
        if not (left := _files(folder)):
            return 0
        await asyncio.sleep(0.1)
    return left


def _archive(folder: Path) -> int:
    place, count = Place.open(folder).at("archive"), 0
    for name in place.files():
        with place.input(name) as file:
            count += PLANTED in repr(parquet.read_table(file).to_pylist())
    return count


def _datasets(stages: Stages) -> Versions:
    assert stages.data_dir is not None
    return Versions(Place.open(stages.data_dir).at("datasets", MODEL))


async def _compiled(stages: Stages) -> int:
    versions = _datasets(stages)
    query = Query(model=MODEL, format="supervised")
    manifest = await compile_dataset(
        stages.log,
        stages.spec,
        stages.keyring,
        query,
        datasets=versions.datasets,
        runner=Here(),
        now=time.time(),
    )
    place = versions.place(manifest.id)
    return sum(
        PLANTED in repr(parquet.read_table(file).to_pylist())
        for file in ((place.local or Path()) / split for split in ("train", "validation"))
        if file.exists()
    )


async def _count(stages: Stages) -> int:
    """Return how many answers and signals there are, those that were erased among them."""
    count = 0
    for stream in ("predictions", "feedback"):
        async for page in stages.log.pages(stream):
            count += sum(b"c" not in fields for _, fields in page)
    return count


async def _same(stages: Stages) -> bool:
    """Tell whether the weights are those of a replay in which these signals were never said."""
    replay = stages.replay_afresh()
    entries = await stages.store.hash(stages.registry.keys.unlearned)
    replay.forgotten = frozenset(entry.decode() for entry in entries)
    await replay.rewind()
    while await replay.replay_step():
        pass
    return replay.learner.digest() == stages.trainer.learner.digest()
