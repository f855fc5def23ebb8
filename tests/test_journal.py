"""The journal: no answer leaves before it is in the log, and many share one round trip."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from redis.exceptions import ResponseError

from online_learner.errors import NotFound, Unavailable
from online_learner.ids import Address
from online_learner.journal import GROUP_MAX, Journal
from online_learner.schema import Ask, Audit, Feedback, Flag, Prediction, Served, Shadow
from online_learner.store import Store, open_store
from online_learner.store.keys import Keys

KEYS = Keys("web")
SHADOW = Shadow(version=0, lineage=1, step=0, output=True, scores={"true": 0.75, "false": 0.25})


def answer(n: int = 0, **fields: Any) -> Prediction:
    """Return a record that can be told from others by its number."""
    known = {"model": "web", "output": True, "version": 1, "lineage": 1, "step": 2}
    return Prediction(**({"features": {"n": n}} | known | fields))


async def appended(store: Store) -> int:
    """Return how many answers are in the log."""
    return int(await store.call("XLEN", KEYS.predictions))


async def scripts_run(store: Store) -> int:
    """Return how many scripts the server has run since its statistics were reset."""
    stats = await store.call("INFO", "commandstats")
    return int(stats.get("cmdstat_evalsha", {"calls": 0})["calls"])


@pytest.fixture
async def journal(store: Store) -> Journal:
    """Return the journal of the model `web`, whose script the server knows."""
    found = Journal(store, "web")
    await found.append([answer()])
    await store.call("DEL", KEYS.predictions)
    await store.call("CONFIG", "RESETSTAT")
    return found


@pytest.fixture
async def paused(store: Store) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    """Hold up writes on the server for the test, at most for a minute; returns what resumes them.

    Reads go on, so that a test can look at the streams meanwhile.
    """
    async with await open_store(store.url) as control:

        async def resume() -> None:
            await control.call("CLIENT", "UNPAUSE")

        await control.call("CLIENT", "PAUSE", "60000", "WRITE")
        yield resume
        await resume()


# --- what is written --------------------------------------------------------------------------


async def test_an_answer_is_read_back_by_its_address(journal: Journal) -> None:
    """Every field of the record comes back."""
    record = answer(
        1,
        scores={"true": 0.75, "false": 0.25},
        ask=Ask(reason="audit", probability=0.5),
        shadows={"champion": SHADOW},
        session_id="s",
        tags={"page": "ü\0"},
        latency_ms=0.25,
    )
    [address] = await journal.append([record])
    assert await journal.read(address) == record


async def test_answers_of_one_call_are_in_order(journal: Journal, store: Store) -> None:
    """A batch gets its addresses in the order of its answers, at once."""
    addresses = await journal.append([answer(n) for n in range(5)])
    assert [(await journal.read(address)).features["n"] for address in addresses] == list(range(5))
    entries = [entry for entry, _ in await store.range(KEYS.predictions)]
    assert [address.entry for address in addresses] == entries
    assert await scripts_run(store) == 1


async def test_no_answers_are_no_trouble(journal: Journal) -> None:
    """An empty batch has no addresses."""
    assert await journal.append([]) == []


async def test_only_audited_answers_are_in_the_audits(journal: Journal, store: Store) -> None:
    """What the gatekeeper reads has the prediction's own id, and only what each role said."""
    asked = [None, "audit", "uncertain", "audit"]
    records = [
        answer(
            n,
            ask=reason and Ask(reason=reason, probability=0.5),
            shadows={"champion": SHADOW} if reason == "audit" else {},
            generation=3,
            user_id="ada",
        )
        for n, reason in enumerate(asked)
    ]
    addresses = await journal.append(records)
    found = await store.range(KEYS.audits)
    assert [entry for entry, _ in found] == [addresses[1].entry, addresses[3].entry]
    for _, fields in found:
        assert set(fields) == {b"a"}
        audit = Audit.model_validate_json(fields[b"a"])
        assert audit == Audit(generation=3, roles={"champion": SHADOW})
        assert b"ada" not in fields[b"a"]


async def audited(store: Store, *, segments: Sequence[str] = (), **fields: Any) -> Audit:
    """Return what the gatekeeper reads of an audited answer."""
    journal = Journal(store, "web", segments=segments)
    record = answer(**({"ask": Ask(reason="audit", probability=0.5)} | fields))
    [address] = await journal.append([record])
    [(_, found)] = await store.range(KEYS.audits, address.entry, address.entry)
    return Audit.model_validate_json(found[b"a"])


async def test_an_audit_says_who_was_shown_and_by_what_chance(store: Store) -> None:
    """Where a coin decided who answers, the audit has the chances of all who could."""
    chances = {"champion": 0.75, "challenger:2": 0.25}
    shown = await audited(store, role="challenger:2", exposure=0.25, chances=chances)
    assert (shown.shown, shown.chances) == ("challenger:2", chances)
    assert (await audited(store)).chances == {}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("NL", "NL"),
        (3, "3"),
        (0.5, "0.5"),
        (True, "true"),
        ("", ""),
        (None, ""),
        ("ü" * 70, "ü" * 64),
        ([1.0, 2.0], "[1.0, 2.0]"),
    ],
)
async def test_an_audit_says_which_segments_it_belongs_to(
    store: Store, value: Any, text: str
) -> None:
    """A declared feature or tag is told as a short text; nothing else of the question is."""
    segments = ["country", "page", "missing"]
    features = {"country": value, "secret": "ada"}
    audit = await audited(
        store, segments=segments, features=features, tags={"page": "home", "country": "x"}
    )
    assert audit.segments == {"country": text, "page": "home", "missing": ""}
    assert (await audited(store, features=features)).segments == {}


@pytest.mark.parametrize("change", [{"seq": 99}, {"ms": 1}, {"nonce": "00000000"}])
async def test_an_address_that_leads_nowhere_is_unknown(
    journal: Journal, change: dict[str, Any]
) -> None:
    """Another place, or another record in that place, is not the prediction that was meant."""
    [address] = await journal.append([answer()])
    wrong = {"ms": address.ms, "seq": address.seq, "nonce": address.nonce} | change
    with pytest.raises(NotFound) as caught:
        await journal.read(Address(**wrong))
    assert caught.value.code == "unknown_prediction"


async def test_models_have_journals_of_their_own(journal: Journal, store: Store) -> None:
    """An answer of one model is not in another's log."""
    [address] = await journal.append([answer()])
    with pytest.raises(NotFound):
        await Journal(store, "topic").read(address)


# --- what is written with it ------------------------------------------------------------------


async def refs(store: Store, kind: str, name: str) -> list[str]:
    """Return the entries under another name, the latest first."""
    found = await store.call("LRANGE", KEYS.ref(kind, name), 0, -1)
    return [item.decode().partition("|")[0] for item in found]


async def test_an_answer_is_found_by_other_names(journal: Journal, store: Store) -> None:
    """Under its session and the caller's own id, the latest first; names do not mix."""
    fields: list[dict[str, Any]] = [
        {"session_id": "s"},
        {"session_id": "s", "external_id": "x"},
        {"external_id": "s"},
        {},
    ]
    addresses = await journal.append([answer(**names) for names in fields])
    entries = [address.entry for address in addresses]
    assert await refs(store, "session_id", "s") == [entries[1], entries[0]]
    assert await refs(store, "external_id", "x") == [entries[1]]
    assert await refs(store, "external_id", "s") == [entries[2]]
    [mark] = await store.call("LRANGE", KEYS.ref("external_id", "x"), 0, -1)
    assert mark.decode() == f"{entries[1]}|{addresses[1].nonce}"


async def test_names_are_kept_short_and_not_for_ever(store: Store) -> None:
    """A session keeps its latest answers only, and is forgotten after the window."""
    journal = Journal(store, "web", window_s=60)
    addresses = await journal.append([answer(n, session_id="s") for n in range(40)])
    assert await refs(store, "session_id", "s") == [a.entry for a in addresses[:-17:-1]]
    assert 55 < await store.call("TTL", KEYS.ref("session_id", "s")) <= 61


async def served(store: Store) -> list[tuple[str, Served]]:
    """Return the first answers of each set of weights."""
    found = await store.range(KEYS.served)
    return [(entry, Served.model_validate_json(fields[b"w"])) for entry, fields in found]


async def test_the_first_answer_of_each_step_is_marked(store: Store) -> None:
    """When weights answer for the first time, the moment is that prediction's own id."""
    journal = Journal(store, "web")
    places = [(1, 1, 2), (1, 1, 2), (1, 1, 3), (2, 1, 3), (2, 2, 3), (2, 2, 3), (1, 1, 2)]
    names = ("version", "lineage", "step")
    records = [answer(**dict(zip(names, place, strict=True))) for place in places]
    first = await journal.append(records[:4])
    rest = await journal.append(records[4:])
    await journal.append(records[6:])
    found = await served(store)
    marked = [(first + rest)[n].entry for n in (0, 2, 3, 4, 6)]
    assert [entry for entry, _ in found] == marked
    assert [(w.version, w.lineage, w.step) for _, w in found] == [
        places[n] for n in (0, 2, 3, 4, 6)
    ]


async def test_each_role_is_marked_for_itself(store: Store) -> None:
    """Where roles take turns, the first answer of each of them is marked, and no other."""
    journal = Journal(store, "web")
    records = [answer(role="latest", step=3) if n % 2 else answer() for n in range(6)]
    addresses = await journal.append(records[:3]) + await journal.append(records[3:])
    assert [entry for entry, _ in await served(store)] == [a.entry for a in addresses[:2]]


async def test_what_was_not_written_is_not_marked(store: Store) -> None:
    """An append that fails leaves the mark to the next one."""
    journal = Journal(store, "web")
    await store.call("SET", KEYS.audits, "mine")
    with pytest.raises((ResponseError, Unavailable)):
        await journal.append([answer()])
    await store.call("DEL", KEYS.audits)
    [address] = await journal.append([answer()])
    assert [entry for entry, _ in await served(store)] == [address.entry]


def flag(rule: str, severity: str = "warn", where: str = "output", **fields: Any) -> Flag:
    """Return what a rule found."""
    known = {"rule": rule, "severity": severity, "where": where, "detail": "d"}
    return Flag.model_validate(known | fields)


async def test_flags_on_the_output_are_signals(journal: Journal, store: Store) -> None:
    """They are appended as feedback, joined; notes, and flags on the input, are not."""
    flags = [
        flag("range", "block"),
        flag("mood", "note"),
        flag("mail", where="input"),
        flag("toxic", option="b"),
    ]
    _, flagged = await journal.append([answer(), answer(1, flags=flags)])
    found = await store.range(KEYS.feedback)
    [(_, record)] = await store.range(KEYS.predictions, flagged.entry, flagged.entry)
    assert {fields[b"p"].decode() for _, fields in found} == {flagged.entry}
    assert {fields[b"r"] for _, fields in found} == {record[b"r"]}
    said = [Feedback.model_validate_json(fields[b"f"]) for _, fields in found]
    assert [(s.kind, s.source) for s in said] == [
        ("flag", "system:range"),
        ("flag", "system:toxic"),
    ]
    assert [s.value for s in said] == [
        {"rule": "range", "severity": "block", "detail": "d", "option": None},
        {"rule": "toxic", "severity": "warn", "detail": "d", "option": "b"},
    ]
    assert all(len(bytes.fromhex(fields[b"n"].decode())) == 4 for _, fields in found)


@pytest.mark.parametrize("key", [KEYS.feedback, KEYS.served, KEYS.ref("session_id", "s")])
async def test_all_is_written_or_nothing(journal: Journal, store: Store, key: str) -> None:
    """A key of another type anywhere stops the whole append."""
    await store.call("DEL", key)
    await store.call("SET", key, "mine")
    record = answer(step=9, session_id="s", flags=[flag("range")])
    with pytest.raises((ResponseError, Unavailable), match="WRONGTYPE"):
        await journal.append([answer(), record])
    assert await appended(store) == 0
    await store.call("DEL", key)
    assert len(await journal.append([answer(), record])) == 2


async def test_names_and_flags_of_a_group_stay_with_their_answers(
    journal: Journal, store: Store
) -> None:
    """Many at once, with and without names and flags, are not mixed up."""

    def record(n: int) -> Prediction:
        names = {} if n % 3 else {"session_id": f"s{n}", "external_id": f"x{n}"}
        return answer(n, flags=[flag(f"r{n}")] * (n % 2), **names)

    replies = await asyncio.gather(*(journal.append([record(n)]) for n in range(60)))
    entries = [address.entry for [address] in replies]
    for n in range(0, 60, 3):
        assert await refs(store, "session_id", f"s{n}") == [entries[n]]
        assert await refs(store, "external_id", f"x{n}") == [entries[n]]
    found = {
        Feedback.model_validate_json(fields[b"f"]).source: fields[b"p"].decode()
        for _, fields in await store.range(KEYS.feedback)
    }
    assert found == {f"system:r{n}": entries[n] for n in range(1, 60, 2)}


# --- group commit -----------------------------------------------------------------------------


async def test_nothing_is_returned_before_it_is_acknowledged(
    journal: Journal, store: Store, paused: Callable[[], Awaitable[None]]
) -> None:
    """While the server does not write, callers wait; when they go on, their answers are there."""
    tasks = [asyncio.create_task(journal.append([answer(n)])) for n in range(3)]
    done, _ = await asyncio.wait(tasks, timeout=0.3)
    assert not done
    assert await appended(store) == 0
    await paused()
    addresses = [address for [address] in await asyncio.gather(*tasks)]
    assert await appended(store) == 3
    found = [(await journal.read(address)).features["n"] for address in addresses]
    assert found == [0, 1, 2]


async def test_concurrent_answers_share_one_round_trip(journal: Journal, store: Store) -> None:
    """A hundred requests at once cost the server one script."""
    await asyncio.gather(*(journal.append([answer(n)]) for n in range(100)))
    assert await appended(store) == 100
    assert await scripts_run(store) == 1


async def test_answers_gather_while_a_group_is_on_its_way(
    journal: Journal, store: Store, paused: Callable[[], Awaitable[None]]
) -> None:
    """Those that come while the disk is busy go together, next."""
    tasks = [asyncio.create_task(journal.append([answer()]))]
    await asyncio.wait(tasks, timeout=0.1)
    for n in range(50):
        tasks.append(asyncio.create_task(journal.append([answer(n)])))
        await asyncio.sleep(0)
    await paused()
    await asyncio.gather(*tasks)
    assert await appended(store) == 51
    assert await scripts_run(store) == 2


async def test_a_group_has_a_limit(journal: Journal, store: Store) -> None:
    """More requests than fit into one group take several, and all are written."""
    count = 2 * GROUP_MAX + 1
    await asyncio.gather(*(journal.append([answer(n)]) for n in range(count)))
    assert await appended(store) == count
    assert await scripts_run(store) == 3


async def test_every_caller_gets_the_addresses_of_its_own_answers(journal: Journal) -> None:
    """Batches of different sizes at once are not mixed up."""
    sizes = [1, 3, 0, 7, 2] * 20
    batches = [[answer(100 * n + i) for i in range(size)] for n, size in enumerate(sizes)]
    replies = await asyncio.gather(*map(journal.append, batches))
    assert [len(reply) for reply in replies] == sizes
    assert len({address for reply in replies for address in reply}) == sum(sizes)
    for batch, reply in zip(batches, replies, strict=True):
        assert [await journal.read(address) for address in reply] == batch


# --- what goes wrong --------------------------------------------------------------------------


async def test_the_record_of_a_caller_who_left_is_kept(
    journal: Journal, store: Store, paused: Callable[[], Awaitable[None]], eventually: Any
) -> None:
    """A cancelled request is logged all the same, and the others of its group are served."""
    gone, first, second = (asyncio.create_task(journal.append([answer(n)])) for n in range(3))
    await asyncio.wait([gone], timeout=0.1)
    late = asyncio.create_task(journal.append([answer(3)]))  # waits for the next group
    await asyncio.sleep(0)
    gone.cancel()
    late.cancel()
    await asyncio.wait([gone, late])
    assert gone.cancelled()
    assert late.cancelled()
    await paused()
    async with asyncio.timeout(10):
        [[one], [other]] = await asyncio.gather(first, second)
    assert (await journal.read(one)).features == {"n": 1}
    assert (await journal.read(other)).features == {"n": 2}

    async def all_there() -> bool:
        return await appended(store) == 4

    await eventually(all_there)


async def test_a_store_that_does_not_answer_is_503_for_everybody(
    start_server: Callable[..., Any],
) -> None:
    """Nobody waits for long or gets an address; the journal works again when the store does."""
    server = start_server()
    async with await open_store(server.url) as store:
        journal = Journal(store, "web")
        await journal.append([answer()])
        server.process.send_signal(signal.SIGSTOP)
        started = time.monotonic()
        first = [asyncio.create_task(journal.append([answer(n)])) for n in range(5)]
        await asyncio.wait(first, timeout=0.05)
        second = [asyncio.create_task(journal.append([answer(n)])) for n in range(5)]
        replies = await asyncio.gather(*first, *second, return_exceptions=True)
        assert time.monotonic() - started < 2.5
        assert [type(reply) for reply in replies] == [Unavailable] * 10
        server.process.send_signal(signal.SIGCONT)
        [address] = await journal.append([answer(7)])
        assert (await journal.read(address)).features == {"n": 7}


async def test_the_journal_goes_on_after_the_server_was_replaced(
    start_server: Callable[..., Any],
) -> None:
    """A new server at the old address, that knows no script, takes the next answers."""
    server = start_server()
    port = server.url.rpartition(":")[2]
    async with await open_store(server.url) as store:
        journal = Journal(store, "web")
        await journal.append([answer()])
        server.stop()
        with pytest.raises(Unavailable):
            await journal.append([answer(1)])
        start_server(port=port)
        [address] = await journal.append([answer(2)])
        assert (await journal.read(address)).features == {"n": 2}


async def test_a_refusal_reaches_the_caller_and_passes(journal: Journal, store: Store) -> None:
    """A key of another type stops the append, not the journal."""
    await store.call("SET", KEYS.audits, "mine")
    with pytest.raises((ResponseError, Unavailable), match="WRONGTYPE"):
        await journal.append([answer(1)])
    assert await appended(store) == 0
    await store.call("DEL", KEYS.audits)
    await journal.append([answer(2)])
    assert await appended(store) == 1


async def test_callers_who_leave_during_a_failure_are_no_trouble(
    start_server: Callable[..., Any],
) -> None:
    """A cancelled request and a failed append together leave nothing behind."""
    server = start_server()
    async with await open_store(server.url) as store:
        journal = Journal(store, "web")
        await journal.append([answer()])
        server.process.send_signal(signal.SIGSTOP)
        tasks = [asyncio.create_task(journal.append([answer(n)])) for n in range(4)]
        await asyncio.wait(tasks, timeout=0.05)
        tasks[0].cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await tasks[0]
        replies = await asyncio.gather(*tasks[1:], return_exceptions=True)
        assert [type(reply) for reply in replies] == [Unavailable] * 3
        server.process.send_signal(signal.SIGCONT)
        assert len(await journal.append([answer(7)])) == 1
