"""Ids are signed addresses: only what we made opens, and it opens to what we put in."""

from __future__ import annotations

import base64
import stat
import string
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from online_learner.errors import ConfigError, NotFound, WindowClosed
from online_learner.ids import Address, Keyring, Kind, check_age, model_hash, new_nonce

ALPHABET = string.ascii_letters + string.digits + "-_"
ADDRESS = Address(1_700_000_000_123, 7, "00ff10ab", shard=3)
ONE, TWO = bytes(range(32)), bytes(range(1, 33))
RING = Keyring({1: ONE})
ID = RING.seal("prediction", "spam", ADDRESS)

addresses = st.builds(
    Address,
    ms=st.integers(0, 2**48 - 1),
    seq=st.integers(0, 2**32 - 1),
    nonce=st.binary(min_size=4, max_size=4).map(bytes.hex),
    shard=st.integers(0, 2**16 - 1),
)
kinds = st.sampled_from(["prediction", "feedback"])


def refused(ring: Keyring, text: str, kind: Kind = "prediction") -> bool:
    """Tell whether an id is refused, and with the right code."""
    with pytest.raises(NotFound) as caught:
        ring.open(kind, text)
    return caught.value.code == f"unknown_{kind}"


# --- round trip -------------------------------------------------------------------------------


@given(addresses, kinds, st.text(min_size=1, max_size=64), st.integers(0, 255))
def test_an_id_opens_to_the_address_it_was_made_of(
    address: Address, kind: Kind, model: str, key_id: int
) -> None:
    """Sealing and opening gives the address and the model back, for every key id."""
    ring = Keyring({key_id: ONE})
    text = ring.seal(kind, model, address)
    assert len(text) == 50
    assert set(text) <= set(ALPHABET)
    assert ring.open(kind, text) == (model_hash(model), address)


@given(addresses, addresses)
def test_two_addresses_never_share_an_id(one: Address, other: Address) -> None:
    """Ids are equal exactly where the addresses are."""
    same = RING.seal("prediction", "spam", one) == RING.seal("prediction", "spam", other)
    assert same == (one == other)


def test_an_address_is_written_as_redis_writes_it() -> None:
    """The entry id is milliseconds, a dash and the sequence."""
    assert ADDRESS.entry == "1700000000123-7"


def test_models_have_different_hashes() -> None:
    """A model's hash is 4 bytes and depends on the whole name."""
    assert len({model_hash(name) for name in ("spam", "Spam", "spam ", "")}) == 4
    assert len(model_hash("spam")) == 4


def test_nonces_are_fresh() -> None:
    """A thousand nonces of 4 bytes hardly ever meet."""
    nonces = {new_nonce() for _ in range(1000)}
    assert len(nonces) > 990
    assert all(len(bytes.fromhex(nonce)) == 4 for nonce in nonces)


# --- forgery ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", range(50))
def test_every_change_of_one_character_is_refused(place: int) -> None:
    """Each of the 63 other characters, and those of other alphabets, is refused in each place."""
    for other in ALPHABET + "+/= \n\0%é":
        if other != ID[place]:
            assert refused(RING, ID[:place] + other + ID[place + 1 :])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        ID[:-1],
        ID + "A",
        ID + "==",
        ID + "\n",
        " " + ID[1:],
        ID.swapcase(),
        ID[::-1],
        "A" * 50,
        "_" * 50,
        "=" * 50,
        "\0" * 50,
        "é" * 50,
        "\ud800" * 50,
        "🙂" * 50,
        "A" * 5000,
    ],
)
def test_what_is_no_id_is_refused(text: str) -> None:
    """Whatever a client sends for an id is answered with 404, never with a crash."""
    assert refused(RING, text)


@given(st.text(max_size=60))
def test_arbitrary_text_is_refused(text: str) -> None:
    """No text that we did not make opens."""
    assert refused(RING, text)


@given(st.binary(min_size=37, max_size=37))
def test_arbitrary_bytes_of_the_right_length_are_refused(raw: bytes) -> None:
    """Well-formed base64 of the right length does not open without the key."""
    assert refused(RING, base64.urlsafe_b64encode(raw).decode().rstrip("="))


def test_the_four_spare_bits_are_fixed() -> None:
    """Of the 16 last characters that decode to the same bytes, only ours is accepted."""
    raw = base64.urlsafe_b64decode(ID + "==")
    twins = [ID[:-1] + c for c in ALPHABET if base64.urlsafe_b64decode(ID[:-1] + c + "==") == raw]
    assert len(twins) == 16
    assert ID in twins
    assert all(refused(RING, twin) for twin in twins if twin != ID)


def test_an_id_of_another_installation_is_refused() -> None:
    """An id made with another key does not open, even where the key has the same number."""
    assert refused(Keyring({1: TWO}), ID)
    assert refused(Keyring({2: ONE}), ID)


def test_a_prediction_id_is_not_a_feedback_id() -> None:
    """The kind is signed, too."""
    assert refused(RING, ID, kind="feedback")
    feedback_id = RING.seal("feedback", "spam", ADDRESS)
    assert refused(RING, feedback_id)
    assert feedback_id != ID


def test_a_refusal_says_what_to_do_and_no_secret() -> None:
    """The message tells how to send an id, and shows neither the key nor the signature."""
    with pytest.raises(NotFound, match="exactly as it was returned") as caught:
        RING.open("prediction", ID[:-1])
    assert ONE.hex() not in str(caught.value)


# --- rotation ---------------------------------------------------------------------------------


def test_an_old_key_still_opens_while_the_new_one_signs() -> None:
    """With two live keys, ids of both open, and the highest number signs."""
    both = Keyring({1: ONE, 2: TWO})
    assert both.open("prediction", ID) == (model_hash("spam"), ADDRESS)
    new = both.seal("prediction", "spam", ADDRESS)
    assert Keyring({2: TWO}).open("prediction", new)[1] == ADDRESS
    assert refused(RING, new)


def test_a_key_that_was_taken_away_opens_nothing() -> None:
    """After the rotation is complete, ids of the old key are unknown."""
    assert refused(Keyring({2: TWO}), ID)


def test_seals_of_both_live_keys_verify() -> None:
    """State sealed before a rotation is still ours after it; that of a stranger is not."""
    both = Keyring({1: ONE, 2: TWO})
    assert both.verify(RING.mac("version", b"a"), "version", b"a")
    assert both.verify(both.mac("version", b"a"), "version", b"a")
    assert not RING.verify(both.mac("version", b"a"), "version", b"a")


@pytest.mark.parametrize(
    ("purpose", "parts"),
    [
        ("version", (b"ab",)),
        ("version", (b"a", b"", b"b")),
        ("version", (b"", b"ab")),
        ("version", (b"b", b"a")),
        ("versiona", (b"b",)),
        ("gate", (b"a", b"b")),
        ("version", ()),
    ],
)
def test_a_seal_covers_where_each_part_ends(purpose: str, parts: tuple[bytes, ...]) -> None:
    """Parts that only run together to the same bytes have another seal."""
    assert not RING.verify(RING.mac("version", b"a", b"b"), purpose, *parts)


@pytest.mark.parametrize("tag", [b"", b"\0" * 32, RING.mac("version", b"a")[:16]])
def test_a_seal_of_another_length_does_not_verify(tag: bytes) -> None:
    """An empty or truncated tag is not ours."""
    assert not RING.verify(tag, "version", b"a")


@pytest.mark.parametrize(
    "keys", [{}, {1: b"short"}, {-1: ONE}, {256: ONE}, {1: ONE, 2: b""}, {1: ONE[:15]}]
)
def test_keys_that_are_too_short_or_misnumbered_are_refused(keys: dict[int, bytes]) -> None:
    """A keyring needs numbers from 0 to 255 and 16 bytes each."""
    with pytest.raises(ConfigError, match="16 bytes"):
        Keyring(keys)


# --- where the secret comes from --------------------------------------------------------------


def test_the_secret_file_is_made_once_and_private(tmp_path: Path) -> None:
    """The first start makes a file for its owner only; the second reads the same keys."""
    home = tmp_path / "not" / "yet"
    first = Keyring.load(home).seal("prediction", "spam", ADDRESS)
    assert stat.S_IMODE((home / "secret").stat().st_mode) == 0o600
    assert Keyring.load(home).seal("prediction", "spam", ADDRESS) == first
    assert [path.name for path in home.iterdir()] == ["secret"]


def test_two_installations_have_different_secrets(tmp_path: Path) -> None:
    """Secrets are drawn at random."""
    text = Keyring.load(tmp_path / "a").seal("prediction", "spam", ADDRESS)
    assert refused(Keyring.load(tmp_path / "b"), text)


def test_processes_that_start_at_once_agree_on_one_secret(tmp_path: Path) -> None:
    """Sixteen first starts at the same moment end with one secret, and leave no drafts."""
    barrier, found = threading.Barrier(16), []

    def start() -> None:
        barrier.wait()
        found.append(Keyring.load(tmp_path).seal("prediction", "spam", ADDRESS))

    threads = [threading.Thread(target=start) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16
    assert len(set(found)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_the_environment_wins_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`OL_SECRET` holds one or two keys; no file is made then."""
    monkeypatch.setenv("OL_SECRET", f"1:{ONE.hex()}, 2:{TWO.hex()}")
    ring = Keyring.load(tmp_path)
    assert ring.open("prediction", ID)[1] == ADDRESS
    assert refused(RING, ring.seal("prediction", "spam", ADDRESS))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    ["secret", "1", "1:", "1:zz", f"x:{ONE.hex()}", f"1:{ONE.hex()},", f"1:{ONE.hex()};2:00", ","],
)
def test_a_secret_of_another_form_is_refused_without_being_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """A misspelt `OL_SECRET` names its form and the cure, and does not show the secret."""
    monkeypatch.setenv("OL_SECRET", text)
    with pytest.raises(ConfigError) as caught:
        Keyring.load(tmp_path)
    assert ONE.hex() not in str(caught.value)


def test_a_damaged_secret_file_is_not_replaced(tmp_path: Path) -> None:
    """A secret that cannot be read stops the start: a new one would disown everything signed."""
    (tmp_path / "secret").write_text("damaged")
    with pytest.raises(ConfigError, match="OL_SECRET"):
        Keyring.load(tmp_path)
    assert (tmp_path / "secret").read_text() == "damaged"


# --- age --------------------------------------------------------------------------------------


@pytest.mark.parametrize("age_s", [-60, 0, 59.9, 60])
def test_feedback_is_taken_inside_the_window(age_s: float) -> None:
    """Up to the last moment of the window, and where clocks differ, an id is not too old."""
    check_age(ADDRESS, now=ADDRESS.ms / 1000 + age_s, window_s=60)


@pytest.mark.parametrize("age_s", [60.01, 61, 1e9])
def test_feedback_after_the_window_is_refused(age_s: float) -> None:
    """Past the window an id is known, but closed: 410, with the age and what to do."""
    with pytest.raises(WindowClosed, match=r"taken for 60 s .* window_s") as caught:
        check_age(ADDRESS, now=ADDRESS.ms / 1000 + age_s, window_s=60)
    assert caught.value.status == 410
