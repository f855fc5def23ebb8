"""From a log to a version: the same bytes every time, by anybody, and nothing where it fails."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from the_datasets import bytes_of, compiled, left

from benchmarks import logs
from benchmarks.compiled import compile_once, stages_of
from online_learner import learn
from online_learner.archive.archiver import Archiver
from online_learner.archive.place import Place
from online_learner.dataset import compiling, provenance
from online_learner.dataset.compiling import most_common
from online_learner.dataset.split import Split
from online_learner.dataset.versions import Versions
from online_learner.errors import DataError
from online_learner.forget.erase import Eraser, Wish
from online_learner.forget.proof import Intent, begin
from online_learner.loop import Loop
from online_learner.release import release
from online_learner.retain import Retention
from online_learner.settings import Settings
from online_learner.stages import make_signals
from online_learner.store import Store, open_store

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]
ROOT = Path(__file__).parent.parent
WINDOW_S = 60


@pytest.fixture
async def archived(open_loop: OpenLoop, make_settings: MakeSettings, tmp_path: Path) -> Loop:
    """Return a loop with the model `web`, which has an archive."""
    settings = make_settings(web={"archive": str(tmp_path / "log")}, window_s=WINDOW_S)
    return await open_loop(settings)


async def talk(loop: Loop, answers: int, *, seed: int = 0) -> None:
    """Let people speak of answers; some change their minds."""
    rng = random.Random(seed)
    for n in range(answers):
        found = await loop.predict("web", {"n": float(n % 13)}, user_id=f"u{n % 7}")
        for _ in range(rng.randrange(3)):
            user, value = f"u{rng.randrange(5)}", rng.random() < 0.4
            await loop.feedback(found["prediction_id"], "correction", value, user_id=user)


async def flush(loop: Loop) -> None:
    """Archive all there is."""
    stages = loop.stages("web")
    assert stages.log.place is not None
    await Archiver(stages.registry, stages.log.place, window_s=WINDOW_S).flush()


async def trim(loop: Loop, clock: Any) -> None:
    """Trim all that is older than the window."""
    clock.advance(10 * WINDOW_S)
    await loop.turn("web")
    options = {"window_s": WINDOW_S, "archived": True, "clock": clock}
    await Retention(loop.store, "web", **options).trim()


# --- the same -------------------------------------------------------------------------------------


@pytest.mark.parametrize("wishes", [{}, {"split_by": "time"}, {"file_format": "jsonl"}])
async def test_store_and_archive_give_the_same_bytes(
    archived: Loop, store: Store, tmp_path: Path, clock: Any, wishes: dict[str, Any]
) -> None:
    """All in the store, half on file, all on file, trimmed: one version, and one set of bytes."""
    await store.call("CONFIG", "SET", "stream-node-max-entries", "1")
    wishes = {"validation": 0.3, **wishes}
    await talk(archived, 60)
    await flush(archived)
    await talk(archived, 60, seed=1)
    found = [await compiled(archived, "web", tmp_path / "half", **wishes)]
    await flush(archived)
    found.append(await compiled(archived, "web", tmp_path / "file", **wishes))
    await trim(archived, clock)
    assert await store.range(archived.stages("web").registry.keys.predictions) == []
    found.append(await compiled(archived, "web", tmp_path / "trimmed", **wishes))
    await store.call("CONFIG", "SET", "stream-node-max-entries", "100")
    manifests = [manifest for manifest, _ in found]
    assert len({manifest.id for manifest in manifests}) == 1
    places = [tmp_path / name for name in ("half", "file", "trimmed")]
    one, two, three = [bytes_of(*pair) for pair in zip(places, manifests, strict=True)]
    assert one == two == three
    assert all(manifests[0].splits.values())
    for manifest, place in zip(manifests, places, strict=True):
        assert Versions(Place.open(place)).verify(manifest.id) == []


async def test_a_version_is_compiled_once(loop: Loop, tmp_path: Path) -> None:
    """Again, and twice at the same time, it is the one that is there; nothing is left beside it."""
    await talk(loop, 30)
    (one, _), (two, _) = await asyncio.gather(*(compiled(loop, "web", tmp_path) for _ in range(2)))
    assert one.id == two.id
    assert left(tmp_path) == [one.id]
    written = (tmp_path / one.id / "manifest.json").stat().st_mtime_ns
    three, _ = await compiled(loop, "web", tmp_path)
    assert three.id == one.id
    assert (tmp_path / one.id / "manifest.json").stat().st_mtime_ns == written


async def test_watermarks_bring_back_a_version(loop: Loop, tmp_path: Path) -> None:
    """What came later is not looked at, neither as a row nor as what replaces one."""
    await talk(loop, 20)
    one, rows = await compiled(loop, "web", tmp_path)
    await talk(loop, 20, seed=1)
    two, _ = await compiled(loop, "web", tmp_path)
    assert two.id != one.id
    again, same_rows = await compiled(loop, "web", tmp_path / "b", watermarks=one.watermarks)
    assert (again.id, same_rows) == (one.id, rows)


async def test_a_time_that_is_over_has_one_version(loop: Loop, tmp_path: Path) -> None:
    """What comes after it changes nothing of a dataset up to then, not even its name."""
    await talk(loop, 20)
    until = time.time() + 0.01
    await asyncio.sleep(0.02)
    one, _ = await compiled(loop, "web", tmp_path, until=until)
    await talk(loop, 5, seed=1)
    two, _ = await compiled(loop, "web", tmp_path, until=until)
    assert two.id == one.id


async def test_what_was_released_counts_after_the_store_has_forgotten_it(
    open_loop: OpenLoop,
    make_settings: MakeSettings,
    tmp_path: Path,
    clock: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log says that an operator believed it; the store's own note goes with what is trimmed."""
    monkeypatch.setattr(learn, "KEPT_MS", 0)  # the learner keeps no older state
    web = {"archive": str(tmp_path / "log"), "audit": 0.0, "publish_s": 0.0}
    archived = await open_loop(make_settings(web=web, window_s=WINDOW_S))
    store = archived.store
    await store.call("CONFIG", "SET", "stream-node-max-entries", "1")
    one = (await archived.predict("web", {"n": 1.0}))["prediction_id"]
    for key in "ab":
        said = {"user_id": "ada", "idempotency_key": key}
        doubted = await archived.feedback(one, "correction", True, **said)
    registry = archived.stages("web").registry
    entry = archived.keyring.open("feedback", str(doubted.feedback_id))[1].entry
    await archived.turn("web")
    await release(registry, await store.range(registry.keys.feedback, entry, entry), by="ops")
    before, [row] = await compiled(archived, "web", tmp_path)
    assert row["signal"] == entry
    for seed in range(3):  # until the learner's last two states know of it
        await talk(archived, 10, seed=seed)
        clock.advance(WINDOW_S)
        await archived.turn("web")
    await flush(archived)
    await trim(archived, clock)
    await store.call("CONFIG", "SET", "stream-node-max-entries", "100")
    assert await store.hash(registry.keys.released) == {}
    after, _ = await compiled(archived, "web", tmp_path, watermarks=before.watermarks)
    assert after.id == before.id


async def test_a_seed_and_a_share_make_another_version(loop: Loop, tmp_path: Path) -> None:
    """All rows stay; they are parted otherwise."""
    await talk(loop, 40)
    made = [
        await compiled(loop, "web", tmp_path, validation=0.5, seed=seed, split_by="user")
        for seed in (0, 1)
    ]
    assert made[0][0].id != made[1][0].id
    texts = [sorted(row["signal"] for row in rows) for _, rows in made]
    assert texts[0] == texts[1]


async def test_sides_are_those_of_the_split(loop: Loop, tmp_path: Path) -> None:
    """Of the last answers all are held out, and of one question all or none."""
    await talk(loop, 80)
    manifest, _ = await compiled(loop, "web", tmp_path, split_by="time", validation=0.25)
    rows = {
        split: [row for table in _tables(tmp_path, manifest.id, split) for row in table.to_pylist()]
        for split in ("train", "validation")
    }
    answered = {split: [_order(row["id"]) for row in found] for split, found in rows.items()}
    said = [_order(row["signal"]) for row in rows["train"]]
    cut = min(answered["validation"])
    assert max(answered["train"]) < cut
    assert max(said)[0] < cut[0]
    manifest, _ = await compiled(loop, "web", tmp_path, validation=0.4)
    sides = {
        split: {
            row["features"] for t in _tables(tmp_path, manifest.id, split) for row in t.to_pylist()
        }
        for split in ("train", "validation")
    }
    assert sides["train"]
    assert sides["validation"]
    assert not sides["train"] & sides["validation"]


def _tables(folder: Path, name: str, split: str) -> Iterator[Any]:
    from online_learner.dataset.reading import tables

    return tables(Versions(Place.open(folder)), name, split)


def _order(entry: str) -> tuple[int, ...]:
    return tuple(map(int, entry.split("-")))


# --- what a version says of itself ----------------------------------------------------------------


async def test_who_speaks_is_counted_over_all_answers(loop: Loop, tmp_path: Path) -> None:
    """By output, whether what was said made a row or not; what users do does not count."""
    ids = [(await loop.predict("web", {"n": 1.0}))["prediction_id"] for _ in range(6)]
    for one in ids[:2]:
        await loop.feedback(one, "correction", True, user_id="ada")
        await loop.feedback(one, "correction", False, user_id="bob")
    await loop.feedback(ids[2], "implicit", event="click")
    manifest, _ = await compiled(loop, "web", tmp_path)
    assert manifest.counts["answered"] == 2
    assert manifest.response == {"false": {"answers": 6, "answered": 2}}


def test_the_most_frequent_outputs_are_named() -> None:
    """The others count together."""
    from collections import Counter

    answers = Counter({f"label {n:03}": 1000 - n for n in range(130)})
    found = most_common(answers, Counter({"label 000": 5, "label 129": 7}))
    assert len(found) == 101
    assert found["label 000"] == {"answers": 1000, "answered": 5}
    assert found["others"]["answered"] == 7
    answers["others"] = 5000  # a label of that name
    found = most_common(answers, Counter())
    assert sum(each["answers"] for each in found.values()) == sum(answers.values())


async def test_configuration_and_code_are_part_of_the_name(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it runs is not; whom it believes is, and so is every source that makes rows."""
    await talk(loop, 10)
    one, _ = await compiled(loop, "web", tmp_path)
    spec = loop.stages("web").spec
    elsewhere = spec.model_copy(update={"archive": "s3://bucket/log"})
    two, _ = await compiled(loop, "web", tmp_path, config=elsewhere)
    assert two.id == one.id
    doubts = spec.model_copy(
        update={"validation": type(spec.validation)(use="policies.validation:Accept")}
    )
    three, _ = await compiled(loop, "web", tmp_path, config=doubts)
    assert three.config_sha256 != one.config_sha256
    monkeypatch.setattr(provenance, "_OURS", provenance._OURS[1:])
    four, _ = await compiled(loop, "web", tmp_path)
    assert (four.config_sha256, four.code_sha256 == one.code_sha256) == (one.config_sha256, False)
    assert make_signals(doubts) is not None


def test_the_code_is_what_policies_import(
    tmp_path: Path, make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A team's package counts as far as a policy reaches into it, by whatever way it imports."""
    package = tmp_path / "our_team_of_r"
    (package / "deep").mkdir(parents=True)
    sources = {
        "__init__.py": "",
        "table.py": "from . import calm\nfrom .deep.words import WORDS\n",
        "calm.py": "import our_team_of_r.far as far\n",
        "far.py": "",
        "deep/__init__.py": "",
        "deep/words.py": "WORDS = ()\n",
        "site.py": "",
    }
    for name, text in sources.items():
        (package / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    spec = make_settings().models["web"].model_copy(update={"signals": "our_team_of_r.table:Ours"})
    before = provenance.code_sha256(spec)
    for name, text in sources.items():
        (package / name).write_text(f"{text}# edited\n")
        assert (provenance.code_sha256(spec) != before) == (name != "site.py"), name
        (package / name).write_text(text)
    assert provenance.code_sha256(spec) == before


async def test_progress_is_told(loop: Loop, tmp_path: Path) -> None:
    """Each part that is done is a step."""
    await talk(loop, 5)
    steps: list[tuple[int, str]] = []
    await compiled(loop, "web", tmp_path, advance=lambda *step: steps.append(step))
    told = ["what counts", "rows", "who speaks", "publishing"]
    assert steps == [(1, what) for what in told]


# --- what fails leaves nothing --------------------------------------------------------------------


async def test_an_empty_log_and_an_empty_selection_are_told(loop: Loop, tmp_path: Path) -> None:
    """With the step that left nothing."""
    with pytest.raises(DataError, match="nothing was said") as caught:
        await compiled(loop, "web", tmp_path)
    assert caught.value.code == "empty"
    await talk(loop, 10)
    with pytest.raises(DataError, match=r"signals: where \d") as caught:
        await compiled(loop, "web", tmp_path, where="weight > 99")
    assert caught.value.code == "empty"
    with pytest.raises(DataError, match="At character 1") as caught:
        await compiled(loop, "web", tmp_path, where="colour = 'red'")
    assert caught.value.code == "not_understood"
    assert left(tmp_path) == []


async def test_a_damaged_archive_is_named(archived: Loop, tmp_path: Path) -> None:
    """A changed byte in a file of the archive stops a compile; nothing is left of it."""
    await talk(archived, 20)
    await flush(archived)
    await compiled(archived, "web", tmp_path / "out")
    [file] = (tmp_path / "log").rglob("feedback/**/*.parquet")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=file.name) as caught:
        await compiled(archived, "web", tmp_path / "new")
    assert caught.value.code == "damaged"
    file.unlink()
    with pytest.raises(DataError) as caught:
        await compiled(archived, "web", tmp_path / "new")
    assert caught.value.code == "missing"
    assert left(tmp_path / "new") == []


async def test_a_full_disk_is_told_and_leaves_nothing(loop: Loop, tmp_path: Path) -> None:
    """Here a limit on the size of files stands for the disk."""
    await talk(loop, 60)
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.getsignal(signal.SIGXFSZ)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(DataError, match="make room") as caught:
            await compiled(loop, "web", tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert caught.value.code == "no_space"
    assert left(tmp_path) == []


@pytest.mark.parametrize("step", ["what counts", "who speaks"])
async def test_where_somebody_is_erased_meanwhile_nothing_is_published(
    loop: Loop, tmp_path: Path, step: str
) -> None:
    """What was read before may hold what was theirs; compiled again, it does not."""
    await talk(loop, 20)
    here, stages = asyncio.get_running_loop(), loop.stages("web")

    def advance(_: int, what: str) -> None:
        if what == step:
            erased = Eraser.of(stages, "u1").erase(Wish(wait_s=0.0))
            asyncio.run_coroutine_threadsafe(erased, here).result()

    with pytest.raises(DataError, match="compile again") as caught:
        await compiled(loop, "web", tmp_path, advance=advance)
    assert caught.value.code == "changed"
    assert left(tmp_path) == []
    manifest, rows = await compiled(loop, "web", tmp_path)
    assert manifest.excluded["erased"] > 0
    assert "human:u1" not in {row["source"] for row in rows}


async def test_what_is_being_erased_is_left_out(loop: Loop, tmp_path: Path) -> None:
    """From the moment that it is noted, also where the erasure was cut short after that."""
    await talk(loop, 20)
    stages = loop.stages("web")
    eraser = Eraser.of(stages, "u1")
    theirs = await eraser.find()
    intent = Intent(feedback=sorted(theirs.feedback))
    await begin(stages.registry, eraser.person.pseudonyms, intent)
    manifest, rows = await compiled(loop, "web", tmp_path)
    assert manifest.excluded["erased"] == len(theirs.feedback)
    assert "human:u1" not in {row["source"] for row in rows}


@pytest.mark.parametrize("step", ["what counts", "rows", "publishing"])
async def test_one_that_is_cancelled_leaves_nothing_half(
    loop: Loop, tmp_path: Path, step: str
) -> None:
    """It ends at the next part; where it is publishing already, the version is whole."""
    await talk(loop, 20)
    task: asyncio.Task[Any] | None = None

    def advance(_steps: int, what: str) -> None:
        if what == step:
            assert task is not None
            task.get_loop().call_soon_threadsafe(task.cancel)
            time.sleep(0.2)  # until it is cancelled, or until it no longer matters

    task = asyncio.create_task(compiled(loop, "web", tmp_path, advance=advance))
    with pytest.raises(asyncio.CancelledError):
        await task
    known = left(tmp_path)
    assert len(known) == (step == "publishing")
    for name in known:
        assert Versions(Place.open(tmp_path)).verify(name) == []


async def test_what_a_part_raises_ends_it(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes wrong where rows are made, nothing is published."""
    await talk(loop, 10)

    def fail(*_: Any) -> str:
        raise RuntimeError

    monkeypatch.setattr(Split, "side", fail)
    with pytest.raises(RuntimeError):
        await compiled(loop, "web", tmp_path)
    assert left(tmp_path) == []
    assert compiling.FORMATS


# --- many workers ---------------------------------------------------------------------------------


@pytest.mark.ray
async def test_any_number_of_workers_gives_the_same(tmp_path: Path) -> None:
    """None, one and two, of a Ray of its own: one name, one set of bytes, and no chatter."""
    async with await open_store("auto", data_dir=tmp_path) as store:
        stages = stages_of(store, tmp_path)
        world = logs.World(3000)
        await logs.write(stages.registry, Place.open(tmp_path).at("archive"), world)
        here = await compile_once(tmp_path, 0)
        for workers in (1, 2):
            command = [sys.executable, "-m", "benchmarks.compiled", str(tmp_path), str(workers)]
            done = await asyncio.to_thread(
                subprocess.run,
                command,
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
                env=os.environ | {"HOME": str(tmp_path)},
            )
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
            found = json.loads(done.stdout)
            assert (found["id"], found["workers"]) == (here["id"], workers)
            assert found["files"] == here["files"]
        assert not (tmp_path / ".ray").exists()
    assert here["counts"]["signals"] == world.signals
    assert {"retracted", "superseded", "duplicate", "implicit"} <= here["excluded"].keys()
