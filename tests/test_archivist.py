"""The archivist: every model's log goes on file, one process at a time, and trouble is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from online_learner import config
from online_learner.archive import archiver as archiver_module
from online_learner.archive.log import Log
from online_learner.archive.place import Place
from online_learner.archive.segments import Segments
from online_learner.cli.archives import archives
from online_learner.cli.finding import Finding
from online_learner.ids import Keyring
from online_learner.loop import Loop
from online_learner.registry import Registry
from online_learner.settings import Settings
from online_learner.stages import Stages
from online_learner.store import Store
from online_learner.store.embedded import EmbeddedServer
from online_learner.store.keys import Keys
from serve_app import archivist as archivist_module
from serve_app.archivist import Work

Eventually = Callable[..., Awaitable[None]]
MakeSettings = Callable[..., Settings]
ANSWERS = 30


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let turns come at once, and let nothing wait long."""
    monkeypatch.setattr(archiver_module, "EVERY_S", 0.0)
    monkeypatch.setattr(archiver_module, "MOST_AGE_S", 0.0)
    monkeypatch.setattr(archivist_module, "TURN_S", 0.02)
    monkeypatch.setattr(archivist_module, "BEAT_EXPIRES_S", 1)


@pytest.fixture
async def settings(
    store: Store, make_settings: MakeSettings, tmp_path: Path, data_dir: Path
) -> Settings:
    """Return the settings of three models, two of which have an archive; they are in the store."""
    place = str(tmp_path / "files")
    found = make_settings(web={"archive": place}, topic={"archive": place}, rent={})
    await config.publish(store, Keyring.load(data_dir), found)
    return found


@pytest.fixture
def start(
    server: EmbeddedServer, data_dir: Path, settings: Settings
) -> Iterator[Callable[..., Work]]:
    """Return a factory of archivists."""
    running: list[Work] = []

    def start_one(*chores: Any) -> Work:
        running.append(Work(server.url, data_dir, list(chores)))
        return running[-1]

    yield start_one
    for work in running:
        asyncio.run(work.stop())


@pytest.fixture
async def loop(open_loop: Callable[..., Awaitable[Loop]], settings: Settings) -> Loop:
    """Return a loop that answers, and archives nothing itself."""
    found = await open_loop(settings)
    for stages in found.models.values():
        stages.archiver = None
    return found


async def ask(loop: Loop, *models: str) -> None:
    """Have some questions answered."""
    for model in models:
        for n in range(ANSWERS):
            await loop.predict(model, {"a": float(n)})


def rows(loop: Loop, model: str) -> Callable[[], Awaitable[int]]:
    """Return what counts the predictions of a model that are on file."""
    segments = Segments(loop.stages(model).registry)

    async def count() -> int:
        return sum(file.rows for file in await segments.all("predictions"))

    return count


async def beat(store: Store, model: str) -> dict[str, Any]:
    """Return what the archivist last told of a model."""
    found = json.loads(await store.call("GET", Keys(model).heartbeat("archive")) or b"{}")
    assert isinstance(found, dict)
    return found


async def look(store: Store, settings: Settings) -> list[Finding]:
    """Return what doctor finds."""
    return [finding async for finding in archives(store, settings)]


async def test_every_model_with_an_archive_is_archived(
    loop: Loop, start: Callable[..., Work], eventually: Eventually, store: Store
) -> None:
    """One process does so for all of them; a model without an archive is left alone."""
    await ask(loop, "web", "topic", "rent")
    work = start()

    async def done() -> bool:
        return await rows(loop, "web")() == await rows(loop, "topic")() == ANSWERS

    await eventually(done, within_s=20)
    work.check()
    await eventually(lambda: beat(store, "topic"))
    assert await beat(store, "rent") == {}
    assert await store.call("EXISTS", Keys("rent").archive) == 0
    assert [f.level for f in await look(store, loop.settings)] == ["ok", "ok"]


async def test_chores_are_done_for_each_model(
    loop: Loop, start: Callable[..., Work], eventually: Eventually, caplog: Any
) -> None:
    """What fails for one model is logged once, and keeps nothing else from being done."""
    seen: list[str] = []
    word = "Zanzibar"

    async def look_after(stages: Stages) -> None:
        seen.append(stages.model)
        if stages.model == "topic":
            raise ValueError(word)

    await ask(loop, "web")
    start(look_after)
    await eventually(lambda: seen.count("topic") > 3, within_s=20)
    await eventually(rows(loop, "web"))
    assert set(seen) == {"web", "topic", "rent"}
    told = [r.getMessage() for r in caplog.records if "look_after failed" in r.getMessage()]
    assert len(told) == 1
    assert "ValueError" in told[0]
    assert word not in told[0]


async def test_a_model_that_is_added_is_archived(
    *,
    loop: Loop,
    start: Callable[..., Work],
    eventually: Eventually,
    make_settings: MakeSettings,
    tmp_path: Path,
    store: Store,
    data_dir: Path,
) -> None:
    """The configuration in the store is followed; nothing is restarted."""
    start()
    await eventually(lambda: beat(store, "web"), within_s=20)
    changed = make_settings(rent={"archive": str(tmp_path / "files")})
    await config.publish_model(store, Keyring.load(data_dir), "rent", changed.models["rent"])
    await ask(loop, "rent")
    await eventually(rows(loop, "rent"), within_s=20)


async def test_the_second_archivist_takes_over(
    loop: Loop, start: Callable[..., Work], eventually: Eventually, store: Store
) -> None:
    """The first one stands by while the second lives, and goes on when that has ended."""
    first = start()
    await ask(loop, "web")
    await eventually(rows(loop, "web"), within_s=20)
    second = start()
    await eventually(lambda: len(second._rooms), within_s=20)

    async def stands_by() -> bool:
        await ask(loop, "web")
        return first._rooms["web"].stands_by

    await eventually(stands_by, within_s=20)
    await second.stop()
    await eventually(lambda: not first._rooms["web"].stands_by, within_s=20)
    total = await store.call("XLEN", Keys("web").predictions)

    async def all_there() -> bool:
        return await rows(loop, "web")() == total

    await eventually(all_there, within_s=20)
    first.check()


async def test_a_place_that_cannot_be_written_to_is_told(
    loop: Loop, start: Callable[..., Work], eventually: Eventually, store: Store, tmp_path: Path
) -> None:
    """The heartbeat says so, and doctor; once it can be, all that waited is archived."""
    (tmp_path / "files").write_text("no folder")
    await ask(loop, "web")
    start()

    async def troubled() -> bool:
        return bool((await beat(store, "web")).get("trouble"))

    await eventually(troubled, within_s=20)
    [finding] = [f for f in await look(store, loop.settings) if f.message.startswith("web")]
    assert finding.level == "problem"
    assert "cannot be written" in finding.message
    (tmp_path / "files").unlink()
    await eventually(rows(loop, "web"), within_s=20)
    registry = loop.stages("web").registry
    assert len(await Log(registry, loop.stages("web").log.place).range("predictions")) == ANSWERS


async def test_doctor_misses_an_archivist(loop: Loop, store: Store) -> None:
    """Where the gatekeeper runs, and nobody archives, the store will fill up."""
    assert await look(store, loop.settings) == []
    await store.call("SET", Keys("web").heartbeat("gatekeeper"), "{}", "EX", 60)
    [finding] = await look(store, loop.settings)
    assert (finding.level, finding.check) == ("problem", "archive")
    late = {"pid": 1, "at": 0.0, "trouble": "", "lag_s": 9000.0}
    await store.call("SET", Keys("web").heartbeat("archive"), json.dumps(late))
    [finding] = await look(store, loop.settings)
    assert (finding.level, "9,000 s" in finding.message) == ("warning", True)


async def test_a_loop_archives_by_itself(
    open_loop: Callable[..., Awaitable[Loop]],
    make_settings: MakeSettings,
    tmp_path: Path,
    store: Store,
    clock: Any,
) -> None:
    """In one process nothing else is needed: what is old goes on file, and only then away."""
    await store.call("CONFIG", "SET", "stream-node-max-entries", "1")
    loop = await open_loop(make_settings(web={"archive": str(tmp_path), "audit": 0.0}))
    registry = loop.stages("web").registry
    assert isinstance(registry, Registry)
    for n in range(8):
        answer = await loop.predict("web", {"a": float(n)})
        await loop.feedback(answer["prediction_id"], "correction", True)
    await loop.turn("web")
    before = {
        s: await loop.stages("web").log.range(s) for s in ("predictions", "feedback", "steps")
    }
    clock.advance(2 * loop.settings.window_s)
    await loop.turn("web")
    await store.call("CONFIG", "SET", "stream-node-max-entries", "100")
    assert await store.call("XLEN", registry.keys.predictions) == 0
    assert await store.call("XLEN", registry.keys.feedback) < 8
    for stream, entries in before.items():
        assert await loop.stages("web").log.range(stream) == entries
    assert Place.open(tmp_path).at("archive").files()
