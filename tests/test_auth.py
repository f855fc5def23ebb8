"""API keys: their form, what is stored of them, and how they begin and end."""

from __future__ import annotations

import hashlib
import json
import re
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as with_any
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from online_learner import auth
from online_learner.auth.tokens import digest, is_mistyped
from online_learner.cli import app
from online_learner.cli.keys import seconds
from online_learner.errors import ConfigError, Forbidden, Unauthorized, Unavailable
from online_learner.note import Note
from online_learner.store import Store, open_store
from serve_app import local

FORM = re.compile(r"ol_[0-9A-Za-z]{49}")
LONG = "a-key-of-their-own-form_" + "x" * 20


class Clock:
    """Seconds that a test moves."""

    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        """Return the time."""
        return self.now


async def keychain_of(store: Store, **options: Any) -> auth.Keychain:
    """Return a keychain that knows what the store holds now."""
    keychain = auth.Keychain(**options)
    await keychain.refresh(store)
    return keychain


def refusal(keychain: auth.Keychain, key: str) -> str:
    """Return why a key is refused; what was sent is not repeated."""
    with pytest.raises(Unauthorized) as refused:
        keychain.open(f"Bearer {key}")
    assert key not in str(refused.value)
    return str(refused.value)


# --- their form -------------------------------------------------------------------------------


def test_a_key_is_long_and_checks_itself() -> None:
    """A prefix, 256 random bits and a checksum, and no two are the same."""
    keys = {auth.new_key() for _ in range(1000)}
    assert len(keys) == 1000
    assert all(FORM.fullmatch(key) and not is_mistyped(key) for key in keys)
    # Each of the 43 takes part, the first as well: 62^43 is barely more than 2^256.
    assert all(len({key[i] for key in keys}) > 40 for i in range(3, 46))


@with_any(place=st.integers(3, 51), other=st.sampled_from(string.ascii_letters + string.digits))
def test_a_mistyped_key_is_known_as_such(place: int, other: str) -> None:
    """One wrong character anywhere is found without a lookup."""
    key = auth.new_key()
    typed = key[:place] + other + key[place + 1 :]
    assert is_mistyped(typed) == (typed != key)


@with_any(place=st.integers(3, 50))
def test_swapped_characters_are_known_as_such(place: int) -> None:
    """Two characters that have changed places are found without a lookup."""
    key = auth.new_key()
    typed = key[:place] + key[place + 1] + key[place] + key[place + 2 :]
    assert is_mistyped(typed) == (typed != key)


@pytest.mark.parametrize("key", ["", "hunter2", "ol_", "ol_" + "a" * 48, "ol_" + "-" * 49, LONG])
def test_keys_of_another_form_are_not_mistyped(key: str) -> None:
    """What a team has made itself has no checksum."""
    assert not is_mistyped(key)


# --- what is stored ---------------------------------------------------------------------------


async def test_only_the_digest_is_stored(store: Store) -> None:
    """The store holds the SHA-256 and what a key may do, and nothing to let anybody in with."""
    key, made = await auth.create(store, name="web", scopes=("predict",), lasts_s=60)
    [(field, record)] = (await store.hash("ol:auth")).items()
    assert field.decode() == hashlib.sha256(key.encode()).hexdigest()
    assert json.loads(record) == {
        "id": made.id, "name": "web", "scopes": ["predict"], "created_at": made.created_at,
        "expires_at": made.created_at + 60, "replaced_by": None, "given": False,
    }  # fmt: skip
    for name in await store.call("KEYS", "*"):
        assert key.encode() not in await store.call("DUMP", name)
    assert key not in repr(made)


async def test_a_record_without_the_newer_fields_is_read(store: Store) -> None:
    """A name and scopes are enough: such a key has no end."""
    record = json.dumps({"name": "old", "scopes": ["read"]})
    await store.call("HSET", "ol:auth", digest("ol_old"), record)
    found = (await keychain_of(store)).open("Bearer ol_old")
    assert (found.name, found.scopes, found.expires_at) == ("old", {"read"}, None)
    assert found.id == digest("ol_old")[:12]


async def test_a_scope_that_is_missing_is_named(store: Store) -> None:
    """A key does what it was made for, and nothing else."""
    key, _ = await auth.create(store, name="web", scopes=("predict", "feedback"))
    held = (await keychain_of(store)).open(f"bearer  {key} ")
    held.require("feedback")
    with pytest.raises(Forbidden, match="scope 'operate'; this one has feedback, predict"):
        held.require("operate")


# --- the keychain -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", "Bearer ", "Basic b2w=", "ol_x", "Bearer é"]
)
async def test_what_is_no_key_is_refused(store: Store, header: str | None) -> None:
    """No header, another scheme, and text that nobody was given are refused."""
    await auth.create(store, name="web", scopes=("read",))
    with pytest.raises(Unauthorized, match="Authorization: Bearer ol_"):
        (await keychain_of(store)).open(header)


async def test_each_end_of_a_key_has_its_words(store: Store) -> None:
    """Mistyped, unknown, expired and revoked are told apart, and what to do about each."""
    clock = Clock()
    kept, of_kept = await auth.create(store, name="kept", scopes=("read",))
    await auth.allow(store, "ol_short", name="short", expires_at=clock.now + 5)
    keychain = await keychain_of(store, clock=clock)
    assert keychain.open("Bearer ol_short").name == "short"
    clock.now += 5
    assert "has expired: `online-learner keys rotate`" in refusal(keychain, "ol_short")
    assert "keys create" in refusal(keychain, auth.new_key())
    typed = kept[:-1] + ("a" if kept[-1] != "a" else "b")
    assert "mistyped" in refusal(keychain, typed)
    await auth.revoke(store, of_kept.id)
    assert keychain.open(f"Bearer {kept}").name == "kept"  # until it is read again
    await keychain.refresh(store)
    assert "was revoked" in refusal(keychain, kept)


async def test_known_keys_hold_while_the_store_is_away(
    start_server: Callable[..., Any],
) -> None:
    """Nobody is thrown out by an outage, and nobody stays longer for it."""
    server, clock = start_server(), Clock()
    async with await open_store(server.url) as store:
        await auth.allow(store, "ol_for_good", name="good")
        await auth.allow(store, "ol_a_minute", name="short", expires_at=clock.now + 60)
        keychain = await keychain_of(store, clock=clock)
        server.stop()
        with pytest.raises(Unavailable):
            await keychain.refresh(store)
        assert keychain.open("Bearer ol_a_minute").name == "short"
        clock.now += 61
        assert keychain.open("Bearer ol_for_good").name == "good"
        assert "expired" in refusal(keychain, "ol_a_minute")


# --- their life -------------------------------------------------------------------------------


async def test_a_name_has_one_holder(store: Store) -> None:
    """A name in use is refused, for idempotency keys are the holder's; one that ended is free."""
    _, made = await auth.create(store, name="web", scopes=("predict",))
    with pytest.raises(ConfigError, match=f"keys rotate {made.id}"):
        await auth.create(store, name="web", scopes=("read",))
    await auth.revoke(store, made.id)
    await auth.create(store, name="web", scopes=("read",))


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "-x", "up", "auditor", "local", "né"])
async def test_a_name_is_a_plain_word(store: Store, name: str) -> None:
    """Names that cannot stand in a record, and those of the keys that are given, are refused."""
    with pytest.raises(ConfigError, match="cannot be used"):
        await auth.create(store, name=name, scopes=("read",))
    assert await auth.keys(store) == []


async def test_rotation_keeps_the_holder(store: Store) -> None:
    """The new key has name, scopes and lifetime of the old one, which ends after the grace."""
    clock = Clock()
    old, was = await auth.create(store, name="web", scopes=("predict", "read"), lasts_s=9000)
    new, made = await auth.rotate(store, was.id, grace_s=60)
    assert (made.name, made.scopes) == (was.name, was.scopes)
    assert made.expires_at == pytest.approx(made.created_at + 9000)
    keychain = await keychain_of(store, clock=clock)
    clock.now = made.created_at + 59
    assert keychain.open(f"Bearer {old}").name == keychain.open(f"Bearer {new}").name
    clock.now += 2
    assert "expired" in refusal(keychain, old)
    assert keychain.open(f"Bearer {new}").id == made.id
    with pytest.raises(ConfigError, match=f"{made.id} is in its place"):
        await auth.rotate(store, was.id, grace_s=60)


async def test_a_grace_makes_no_key_last_longer(store: Store) -> None:
    """Where the old key would end before the grace does, it ends then."""
    _, was = await auth.create(store, name="web", scopes=("read",), lasts_s=10)
    await auth.rotate(store, was.id, grace_s=3600)
    old, _ = await auth.keys(store)
    assert old.expires_at == was.expires_at


async def test_what_is_revoked_stays_revoked(store: Store) -> None:
    """Neither a rotation nor letting it in once more brings a revoked key back."""
    key, made = await auth.create(store, name="web", scopes=("read",))
    await auth.revoke(store, made.id)
    with pytest.raises(ConfigError, match="was revoked"):
        await auth.rotate(store, made.id, grace_s=60)
    await auth.allow(store, key, name="web")
    assert "revoked" in refusal(await keychain_of(store), key)


@pytest.mark.parametrize(
    "end", [auth.revoke, lambda store, key: auth.rotate(store, key, grace_s=1)]
)
async def test_an_unknown_id_is_suggested(store: Store, end: Callable[..., Any]) -> None:
    """A mistyped id names the one that was meant; a key in its place is not repeated."""
    _, made = await auth.create(store, name="web", scopes=("read",))
    with pytest.raises(ConfigError, match=f"Did you mean '{made.id}'"):
        await end(store, made.id[:-1])
    key = auth.new_key()
    with pytest.raises(ConfigError, match="no key of that id") as refused:
        await end(store, key)
    assert key not in str(refused.value)


# --- keys of the environment ------------------------------------------------------------------


def test_a_given_key_comes_by_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`OL_API_KEY_FILE` names the file that holds the key."""
    (tmp_path / "key").write_text(f"{LONG}\n")
    monkeypatch.setenv("OL_API_KEY_FILE", str(tmp_path / "key"))
    assert auth.key_from_environment("OL_API_KEY") == LONG


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("x" * 31, "keys create"),
        ("x" * 31 + "é", "ASCII"),
        ("x" * 20 + " " + "x" * 20, "without spaces"),
        ("x" * 20 + "\n" + "x" * 20, "without spaces"),
        ("ol_" + "0" * 49, "mistyped"),
    ],
)
def test_a_given_key_is_worth_it(monkeypatch: pytest.MonkeyPatch, key: str, words: str) -> None:
    """Short ones, those that no header carries, and mistyped ones are refused unseen."""
    monkeypatch.setenv("OL_AUDIT_KEY", key)
    with pytest.raises(ConfigError, match=words) as refused:
        auth.key_from_environment("OL_AUDIT_KEY")
    assert key not in str(refused.value)


async def scopes_of(store: Store, key: str) -> set[str]:
    """Return what a key may do."""
    return set((await keychain_of(store)).open(f"Bearer {key}").scopes)


async def test_the_applications_key_is_no_auditors(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may do all but `audit`; a key for auditors is named in the environment."""
    await auth.allow_environment_keys(store, "ol_app", name="up")
    assert await scopes_of(store, "ol_app") == set(auth.SCOPES) - {"audit"}
    monkeypatch.setenv("OL_AUDIT_KEY", LONG)
    await auth.allow_environment_keys(store, "ol_app", name="up")
    assert await scopes_of(store, LONG) == {"feedback", "label", "audit", "read"}
    assert await scopes_of(store, "ol_app") == set(auth.SCOPES) - {"audit"}
    with pytest.raises(ConfigError, match="give auditors another one"):
        await auth.allow_environment_keys(store, LONG, name="up")


async def test_the_auditors_key_that_is_made_gives_way(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one that `up` makes is let in until the environment names another, and ends then."""
    await auth.allow_environment_keys(store, "ol_app", name="up", auditors="ol_made")
    assert await scopes_of(store, "ol_made") == {"feedback", "label", "audit", "read"}
    monkeypatch.setenv("OL_AUDIT_KEY", LONG)
    await auth.allow_environment_keys(store, "ol_app", name="up", auditors="ol_made")
    assert await scopes_of(store, LONG) == {"feedback", "label", "audit", "read"}
    with pytest.raises(Unauthorized):
        await scopes_of(store, "ol_made")


def test_no_key_of_auditors_is_left_that_lets_nobody_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`teach` and `label` speak by what they find in the file: it goes where another is given."""
    file = tmp_path / "audit_key"
    made = local.auditors_key(file)
    assert (file.read_text(), file.stat().st_mode & 0o777) == (made, 0o600)
    monkeypatch.setenv("OL_AUDIT_KEY", LONG)
    assert local.auditors_key(file) is None
    assert not file.exists()


async def test_a_key_that_is_no_longer_given_ends(store: Store) -> None:
    """Another key in its place puts it out, or none; keys that were made otherwise stay."""
    made, _ = await auth.create(store, name="web", scopes=("read",))
    await auth.allow_environment_keys(store, "ol_before", name="up")
    await auth.allow_environment_keys(store, "ol_after", name="up")
    refusal(await keychain_of(store), "ol_before")
    assert await scopes_of(store, made) == {"read"}
    assert await scopes_of(store, "ol_after") == set(auth.OWN)
    await auth.allow_environment_keys(store, None, name="OL_API_KEY")
    refusal(await keychain_of(store), "ol_after")
    assert await scopes_of(store, made) == {"read"}


async def test_a_given_key_is_revoked_for_good(store: Store) -> None:
    """A start with a revoked key is refused, and says where another is given."""
    await auth.allow_environment_keys(store, "ol_app", name="up")
    [given] = await auth.keys(store)
    with pytest.raises(ConfigError, match="change it there"):
        await auth.rotate(store, given.id, grace_s=60)
    await auth.revoke(store, given.id)
    with pytest.raises(
        ConfigError, match="was revoked: give another in OL_API_KEY, or remove api_"
    ):
        await auth.allow_environment_keys(store, "ol_app", name="up")
    await auth.allow_environment_keys(store, None, name="up", auditors="ol_made")
    [made] = [key for key in await auth.keys(store) if key.name == "auditor"]
    await auth.revoke(store, made.id)
    with pytest.raises(ConfigError, match="in OL_AUDIT_KEY, or remove audit_key"):
        await auth.allow_environment_keys(store, None, name="up", auditors="ol_made")


async def test_a_made_key_that_is_given_stays_as_it_was_made(store: Store) -> None:
    """`keys create` decides what it may do, also where it comes back by the environment."""
    key, made = await auth.create(store, name="web", scopes=("read",))
    await auth.allow_environment_keys(store, key, name="up")
    assert await auth.keys(store) == [made]


# --- on the command line ----------------------------------------------------------------------


@pytest.fixture
def run(
    store: Store, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    """Return `run(*arguments)`: `online-learner keys ...` on the session's server, emptied."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("REDIS_URL", server.url)

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["keys", *arguments])

    return invoke


def listed(run: Callable[..., Result]) -> list[dict[str, Any]]:
    """Return what `keys list` shows."""
    return list(json.loads(run("list", "--json").stdout)["keys"])


def test_a_key_is_shown_once(run: Callable[..., Result]) -> None:
    """It stands alone on standard output; the list tells all but the key."""
    made = run(
        "create", "--name", "web", "--scope", "predict", "--scope", "read", "--expires", "90d"
    )
    key = made.stdout.strip()
    assert FORM.fullmatch(key)
    assert "It is shown this once." in made.stderr
    [row] = listed(run)
    assert (row["name"], row["scopes"], row["state"]) == ("web", ["predict", "read"], "live")
    assert row["expires_at"] - row["created_at"] == 90 * 86_400
    for shown in (run("list"), run("list", "--json"), run("revoke", row["id"]), run("list")):
        assert shown.exit_code == 0
        assert key not in shown.output
        assert row["id"] in shown.output
    assert [row["state"] for row in listed(run)] == ["revoked"]


def test_a_key_is_rotated_by_its_id(run: Callable[..., Result]) -> None:
    """The holder then has two keys, and the old one has an end."""
    run("create", "--name", "web", "--scope", "predict")
    [old] = listed(run)
    new = json.loads(run("rotate", old["id"], "--grace", "10m", "--json").stdout)
    assert FORM.fullmatch(new["key"])
    before, after = listed(run)
    assert (before["id"], before["replaced_by"]) == (old["id"], new["id"])
    assert before["expires_at"] == pytest.approx(after["created_at"] + 600)
    assert (after["id"], after["expires_at"]) == (new["id"], None)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("create", "--name", "up", "--scope", "read"), 1, "cannot be used"),
        (("create", "--name", "web", "--scope", "reed"), 2, "Did you mean 'read'?"),
        (("create", "--name", "web"), 2, "--scope"),
        (("create", "--name", "web", "--scope", "read", "--expires", "soon"), 2, "say how long"),
        (("rotate", "nothing"), 1, "keys list"),
        (("revoke", "nothing"), 1, "keys list"),
    ],
)
def test_a_mistake_says_what_to_do(
    run: Callable[..., Result], arguments: tuple[str, ...], code: int, words: str
) -> None:
    """Each has its exit code and the cure, and nothing is made."""
    result = run(*arguments)
    assert (result.exit_code, words in result.output) == (code, True), result.output
    assert listed(run) == []


def test_the_store_is_that_of_the_service(
    run: Callable[..., Result], server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is found by the configuration, or by the note of `up`; else nothing is started."""
    assert run("create", "--name", "web", "--scope", "read").exit_code == 0
    monkeypatch.delenv("REDIS_URL")
    nowhere = run("list")
    assert nowhere.exit_code == 2
    assert "REDIS_URL" in nowhere.output
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "loop.yaml").write_text(f"store: {server.url}\nmodels: {{}}\n")
    assert [row["name"] for row in listed(run)] == ["web"]
    (tmp_path / "loop.yaml").unlink()
    (tmp_path / ".online_learner").mkdir()
    Note("http://x", "ol_x", server.url, pid=1).write(tmp_path / ".online_learner")
    assert [row["name"] for row in listed(run)] == ["web"]


@pytest.mark.parametrize("text", ["", "10", "d", "1.5h", "-1d", "1y", "9999999d"])
def test_durations_have_a_unit(text: str) -> None:
    """What is no number with a unit is refused, not guessed."""
    with pytest.raises(Exception, match="say how long"):
        seconds(text)


# --- a store without room ---------------------------------------------------------------------


async def fill(store: Store) -> None:
    """Write until the store refuses."""
    for number in range(1000):
        await store.call("SET", f"filler {number}", "x" * 100_000)


async def test_a_key_ends_though_the_store_is_full(start_server: Callable[..., Any]) -> None:
    """Keys are made, rotated and revoked where nothing else can be written."""
    url = start_server(maxmemory="8mb").url
    async with await open_store(url) as store:
        key, made = await auth.create(store, name="ada", scopes=["predict"])
        with pytest.raises(Unavailable):
            await fill(store)
        renewed, _ = await auth.rotate(store, made.id, grace_s=0.0)
        await auth.revoke(store, made.id)
        keychain = await keychain_of(store)
        assert "revoked" in refusal(keychain, key)
        assert keychain.open(f"Bearer {renewed}").name == "ada"
