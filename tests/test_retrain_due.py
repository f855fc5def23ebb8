"""When a training job is due: by signals, on schedule, by an alarm; and when it is not."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from conftest import ManualClock
from the_learner import say

from online_learner.loop import Loop
from online_learner.operate import operate
from online_learner.retrain.due import DEATHS, due
from online_learner.retrain.job import Request, refuse
from online_learner.retrain.records import Job, Lock, jobs
from online_learner.schema import Raised
from online_learner.settings import Settings

OpenLoop = Callable[..., Awaitable[Loop]]
MakeSettings = Callable[..., Settings]
Open = Callable[..., Awaitable[Loop]]


@pytest.fixture
def open_with(open_loop: OpenLoop, make_settings: MakeSettings) -> Open:
    """Return a factory of loops whose model is trained anew when something happens."""

    async def open_one(**retrain: Any) -> Loop:
        return await open_loop(make_settings(web={"retrain": retrain}))

    return open_one


async def why(loop: Loop) -> str | None:
    """Return why a job is due."""
    stages = loop.stages("web")
    return await due(stages.registry, stages.spec, now=loop.ingest.clock())


async def write(loop: Loop, state: str, *, learned: int = 0, name: str = "j") -> None:
    """Write down a job that ended so, now; one that died never said so."""
    registry, now = loop.stages("web").registry, loop.ingest.clock()
    lock = Lock(registry, name)
    assert await lock.write("begin", Job(id=name, learned=learned, started_at=now))
    if state == "died":
        await registry.store.call("DEL", registry.keys.heartbeat("retrain"))
    else:
        ended = Job.model_validate({"id": name, "learned": learned, "state": state})
        await lock.write("end", ended.model_copy(update={"started_at": now}))


async def raise_alarm(loop: Loop, *effects: str) -> None:
    """Write down an alarm, as observers do."""
    alarm = Raised(by="drift", about="loss", sentence="It has moved.", effects=list(effects))
    alarms = loop.stages("web").registry.keys.alarms
    await loop.store.call("XADD", alarms, "*", "a", alarm.pack())


async def test_nothing_is_due_unless_it_is_wanted(open_with: Open) -> None:
    """Signals and alarms alone begin no job."""
    loop = await open_with()
    await say(loop, 20)
    await loop.turn("web")
    await raise_alarm(loop, "retrain")
    assert await why(loop) is None


async def test_after_so_many_signals(open_with: Open) -> None:
    """They are counted since the last job began, whatever came of that."""
    loop = await open_with(after_signals=10)
    await say(loop, 9)
    await loop.turn("web")
    assert await why(loop) is None
    await say(loop, 1)
    await loop.turn("web")
    assert await why(loop) == "10 signals have come since the beginning"
    await write(loop, "refused", learned=10)
    assert await why(loop) is None
    await say(loop, 10)
    await loop.turn("web")
    assert await why(loop) is not None


async def test_after_a_reset_counting_begins_anew(open_with: Open) -> None:
    """A model that went back to few signals is trained again after so many more."""
    loop = await open_with(after_signals=10)
    await write(loop, "done", learned=1000)
    await say(loop, 9)
    await loop.turn("web")
    assert await why(loop) is None
    await say(loop, 1)
    await loop.turn("web")
    assert await why(loop) is not None


async def test_what_a_reset_took_back_is_not_new(
    open_loop: OpenLoop, make_settings: MakeSettings
) -> None:
    """Where a model went back to many signals, only those count that it has learned since."""
    promotion = {"policy": "policies.promotion:Sequential", "snapshot_every": 20}
    web = {"promotion": promotion, "retrain": {"after_signals": 10}}
    loop = await open_loop(make_settings(web=web))
    registry = loop.stages("web").registry
    for _ in range(2):
        await say(loop, 20)
        await loop.turn("web")
    await write(loop, "done", learned=40)
    assert (await registry.version(1)).learned == 20
    await operate(registry, "rollback", by="key:ada", now=loop.ingest.clock(), version=1)
    await loop.turn("web")
    published = await registry.published()
    assert published is not None
    assert published.learned == 20
    assert await why(loop) is None
    await say(loop, 10)
    await loop.turn("web")
    assert await why(loop) == "10 signals have come since the last job"


async def test_what_came_too_late_to_be_learned_counts(open_with: Open) -> None:
    """It fills datasets like the rest."""
    loop = await open_with(after_signals=10)
    late = loop.stages("web").registry.keys.late
    for _ in range(10):
        assert await why(loop) is None
        await loop.store.call("XADD", late, "*", "f", "{}")
    assert await why(loop) == "10 signals have come since the beginning"
    stages = loop.stages("web")
    await refuse(stages, Request(), "enough")
    assert await why(loop) is None


async def test_on_schedule(open_with: Open, clock: ManualClock) -> None:
    """From when the model began, and then from when the last job began."""
    loop = await open_with(every_s=3600.0)
    clock.advance(3599)
    assert await why(loop) is None
    clock.advance(1)
    assert await why(loop) == "on schedule, every 3600 s"
    await write(loop, "done")
    assert await why(loop) is None
    clock.advance(3600)
    assert await why(loop) is not None


async def test_by_an_alarm_that_asks_for_it(open_with: Open, clock: ManualClock) -> None:
    """One that names other effects does not, nor one that is older than the last job."""
    loop = await open_with(on_drift=True)
    await raise_alarm(loop, "ask", "snapshots")
    assert await why(loop) is None
    await raise_alarm(loop, "ask", "retrain")
    assert await why(loop) == "an alarm: It has moved."
    clock.advance(10)
    await write(loop, "done")
    assert await why(loop) is None


async def test_not_while_a_job_runs(open_with: Open, clock: ManualClock) -> None:
    """Nor before the model has weights."""
    loop = await open_with(every_s=1.0)
    clock.advance(10)
    assert await why(loop) is not None
    lock = Lock(loop.stages("web").registry, "j")
    assert await lock.write("begin", Job(id="j"))
    assert await why(loop) is None
    await lock.write("end", Job(id="j", state="done"))
    assert await why(loop) is not None
    await loop.store.call("FLUSHALL")
    assert await why(loop) is None


async def test_a_job_that_died_is_tried_again_and_not_for_ever(open_with: Open) -> None:
    """After some deaths in a row, it counts as done."""
    loop = await open_with(on_drift=True, after_signals=5)
    await say(loop, 5)
    await loop.turn("web")
    for n in range(DEATHS):
        assert await why(loop) is not None
        await write(loop, "died", learned=5, name=f"j{n}")
    assert await why(loop) is None
    await say(loop, 5)
    await loop.turn("web")
    assert await why(loop) is not None


async def test_what_cannot_be_begun_is_not_begun_again_at_once(open_with: Open) -> None:
    """A search that the learner does not know, say: the record says why, and counts as a job."""
    loop = await open_with(after_signals=5)
    await say(loop, 5)
    await loop.turn("web")
    assert await why(loop) is not None
    stages = loop.stages("web")
    job = await refuse(stages, Request(because="on schedule"), "there is no such argument")
    assert [one.model_dump() for one in await jobs(stages.registry)] == [job.model_dump()]
    assert (job.state, job.why) == ("refused", "there is no such argument")
    assert await why(loop) is None
