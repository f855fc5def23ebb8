"""Versions of datasets: written whole or not at all, named by content, and verified to the byte."""

from __future__ import annotations

import json
import random
import resource
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import fs
from the_versions import QUERY, SCHEMA, names, publish, table, write

from online_learner.archive.place import PARTIAL, Place
from online_learner.dataset import comparing, versions
from online_learner.dataset.card import render
from online_learner.dataset.manifest import CARD, MANIFEST, Manifest
from online_learner.dataset.query import Query
from online_learner.dataset.reading import rows, tables
from online_learner.dataset.sinks import FILE_ROWS, GROUP_ROWS
from online_learner.dataset.versions import Draft, Versions
from online_learner.errors import DataError

LINES = QUERY.model_copy(update={"file_format": "jsonl"})


@pytest.fixture
def datasets(tmp_path: Path) -> Place:
    """Return an empty place on this machine."""
    return Place.open(tmp_path / "datasets" / "web")


@pytest.fixture
def remote(tmp_path: Path) -> Place:
    """Return a place that can be reached by pyarrow alone, as an object store is."""
    tree = fs.SubTreeFileSystem(str(tmp_path), fs.LocalFileSystem())
    (tmp_path / "bucket").mkdir()
    return Place("tree://bucket", tree, "bucket")


def folder(datasets: Place, name: str = "") -> Path:
    """Return the folder of a place, or of a version in it."""
    assert datasets.local is not None
    return datasets.local / name


def everything(path: Path) -> dict[str, bytes]:
    """Return all files under a path."""
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


def overwrite(path: Path, data: bytes) -> None:
    """Write to a file that is read-only."""
    path.chmod(0o600)
    path.write_bytes(data)


def refusal(work: Callable[[], object]) -> DataError:
    """Return the error that some work raises."""
    with pytest.raises(DataError) as caught:
        work()
    return caught.value


# --- written ----------------------------------------------------------------------------------


def test_a_version_is_a_folder_of_splits_with_a_manifest_and_a_card(datasets: Place) -> None:
    """Its files are those of the manifest, read-only, and nothing else is left."""
    found = publish(datasets, table(range(900)), table(range(900, 1000)))
    files = {"train/part-00000.parquet", "validation/part-00000.parquet", MANIFEST, CARD}
    assert set(everything(folder(datasets))) == {f"{found.id}/{file}" for file in files}
    assert [(file.path, file.rows) for file in found.files] == [
        ("train/part-00000.parquet", 900),
        ("validation/part-00000.parquet", 100),
    ]
    for path in folder(datasets, found.id).rglob("*"):
        assert path.is_dir() or not path.stat().st_mode & stat.S_IWUSR
    assert json.loads(folder(datasets, f"{found.id}/{MANIFEST}").read_text())["id"] == found.id
    assert Versions(datasets).verify(found.id) == []


@pytest.mark.parametrize("query", [QUERY, LINES], ids=["parquet", "jsonl"])
def test_bytes_depend_on_the_rows_alone(tmp_path: Path, query: Query) -> None:
    """However many rows come at a time, files and names are equal to the byte."""
    every = table(range(2 * GROUP_ROWS + 17))
    places = [Place.open(tmp_path / name) for name in "abc"]
    found = [
        publish(place, every, query=query, batch=batch)
        for place, batch in zip(places, (1000, GROUP_ROWS, every.num_rows), strict=True)
    ]
    assert len({manifest.id for manifest in found}) == 1
    first, *others = [everything(folder(place)) for place in places]
    assert all(other == first for other in others)


def test_chunks_and_slices_leave_no_trace(tmp_path: Path) -> None:
    """Rows from the middle of other tables give the bytes of rows that came alone."""
    plain = publish(Place.open(tmp_path / "a"), table(range(100, 300)))
    chunked = pa.concat_tables(
        [table(range(90, 210)).slice(10), table(range(210, 500)).slice(0, 90)]
    )
    assert publish(Place.open(tmp_path / "b"), chunked).files == plain.files


def test_rows_are_cut_into_groups_and_files(datasets: Place) -> None:
    """Row groups and files hold a fixed number of rows."""
    found = publish(datasets, table(range(FILE_ROWS + 10)), batch=50_000)
    assert [file.rows for file in found.files] == [FILE_ROWS, 10]
    first = pq.ParquetFile(folder(datasets, found.id) / found.files[0].path)
    sizes = {first.metadata.row_group(n).num_rows for n in range(first.metadata.num_row_groups)}
    assert sizes == {GROUP_ROWS}
    assert first.metadata.row_group(0).column(0).compression == "ZSTD"


def test_other_rows_have_another_name(datasets: Place) -> None:
    """One weight that differs makes another version; when and by how many, does not."""
    first = publish(datasets, table(range(50)), workers=1, took_s=1.0)
    assert publish(datasets, table(range(50), weight=0.5)).id != first.id
    assert publish(datasets, table(range(50)), workers=2, took_s=9.0, created_at=7.0) == first


def test_publishing_again_returns_the_one_that_is_there(datasets: Place) -> None:
    """Nothing of it is overwritten, and the second draft is gone."""
    first = publish(datasets, table(range(50)))
    before = everything(folder(datasets))
    stamps = {path: path.stat().st_mtime_ns for path in folder(datasets).rglob("*")}
    assert publish(datasets, table(range(50)), created_at=99.0) == first
    assert everything(folder(datasets)) == before
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps


def test_many_that_publish_the_same_at_once_agree(datasets: Place) -> None:
    """All get the one version that there is then, and it is sound."""
    work = range(8)
    with ThreadPoolExecutor(8) as pool:
        found = list(
            pool.map(lambda n: publish(datasets, table(range(500)), created_at=float(n)), work)
        )
    assert len({manifest.checksum for manifest in found}) == 1
    assert [path.name for path in folder(datasets).iterdir()] == [found[0].id]
    assert Versions(datasets).verify(found[0].id) == []


def test_over_a_damaged_one_nothing_is_published(datasets: Place) -> None:
    """The error says that it is damaged, and what to do; it is not repaired in silence."""
    first = publish(datasets, table(range(50)))
    path = folder(datasets, first.id) / first.files[0].path
    overwrite(path, path.read_bytes()[:-1])
    before = everything(folder(datasets))
    error = refusal(lambda: publish(datasets, table(range(50))))
    assert error.code == "exists"
    assert "remove" in str(error).lower()
    assert everything(folder(datasets)) == before


def test_a_draft_that_fails_leaves_nothing(datasets: Place) -> None:
    """What was written until then is gone, and no listing has shown it."""
    versions = Versions(datasets)

    def work() -> None:
        with Draft(datasets) as draft:
            draft.scratch.write("part.parquet", b"spooled")
            write(draft, "train", table(range(GROUP_ROWS + 1)), QUERY, 1000)
            half = draft.sink("validation", SCHEMA, "parquet")
            half.write(table(range(2 * GROUP_ROWS)))
            assert everything(folder(datasets))
            assert versions.list() == []
            assert versions.folders() == []
            raise DataError("it went wrong", code="empty")

    assert refusal(work).code == "empty"
    assert list(folder(datasets).iterdir()) == []


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    """Where a file cannot grow any more the error is `no_space`, for both formats."""
    program = f"""
import resource, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from the_versions import QUERY, publish, table
from online_learner.archive.place import Place
from online_learner.errors import DataError
rows = table(range(100_000))
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
for kind in ("parquet", "jsonl"):
    query = QUERY.model_copy(update={{"file_format": kind}})
    try:
        publish(Place.open({str(tmp_path)!r}), rows, query=query)
    except DataError as error:
        print(error.code, str(error))
"""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["no_space", "no_space"], done.stdout
    assert all("make room" in line for line in lines)
    assert not done.stderr
    assert list(tmp_path.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_columns_of_other_types_are_refused(datasets: Place) -> None:
    """A type that no reader would know is a mistake in the code, and told before a row."""
    schema = pa.schema([pa.field("when", pa.date32())])
    with Draft(datasets) as draft, pytest.raises(ValueError, match="date32"):
        draft.sink("train", schema, "parquet")


def test_an_object_store_gets_the_manifest_last(remote: Place, tmp_path: Path) -> None:
    """A version is listed, verified, read and removed there too; without a manifest it is none."""
    found = publish(remote, table(range(300)), table(range(300, 330)))
    versions = Versions(remote)
    assert versions.get("latest") == found
    assert versions.verify(found.id) == []
    assert len(list(rows(versions, found.id, "all"))) == 330
    assert publish(remote, table(range(300)), table(range(300, 330))) == found
    assert [path.name for path in (tmp_path / "bucket").iterdir()] == [found.id]
    (tmp_path / "bucket" / found.id / MANIFEST).unlink()
    assert versions.list() == []
    assert not versions.there(found.id)
    assert publish(remote, table(range(300)), table(range(300, 330))) == found
    versions.remove(found.id)
    assert list((tmp_path / "bucket").iterdir()) == []


# --- verified ---------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["parquet", "jsonl"])
def sound(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Return a place with one sound version of each kind of file."""
    place = Place.open(tmp_path_factory.mktemp("sound"))
    query = QUERY.model_copy(update={"file_format": request.param})
    publish(place, table(range(64)), table(range(64, 80)), query=query, excluded={"late": 2})
    return place


@settings(max_examples=150)
@given(st.data())
def test_any_flipped_byte_is_found(sound: Place, data: st.DataObject) -> None:
    """Of the rows, of the manifest with its times, and of the card."""
    versions = Versions(sound)
    [name] = versions.folders()
    path = data.draw(st.sampled_from(sorted(p for p in folder(sound, name).rglob("*.*"))))
    before = path.read_bytes()
    place = data.draw(st.integers(0, len(before) - 1))
    flipped = bytearray(before)
    flipped[place] ^= data.draw(st.integers(1, 255))
    assert versions.verify(name) == []
    overwrite(path, bytes(flipped))
    try:
        assert versions.verify(name), f"{path.name} at {place}"
    finally:
        path.write_bytes(before)


def test_each_digit_of_the_times_is_under_the_checksum(datasets: Place) -> None:
    """When it was compiled is no part of the name, and cannot be changed all the same."""
    found = publish(datasets, table(range(5)), created_at=1_700_000_000.25, workers=2)
    path = folder(datasets, found.id) / MANIFEST
    text = path.read_text()
    for old, new in (("1700000000.25", "1700000001.25"), ('"workers": 2', '"workers": 3')):
        assert text.count(old) == 1
        overwrite(path, text.replace(old, new).encode())
        [problem] = Versions(datasets).verify(found.id)
        assert "not as it was written" in problem


def test_what_is_missing_cut_or_added_is_named(datasets: Place) -> None:
    """Each problem names its file, and all of them are told."""
    found = publish(datasets, table(range(50)), table(range(50, 60)))
    home, versions = folder(datasets, found.id), Versions(datasets)
    train, held_out = home / found.files[0].path, home / found.files[1].path
    overwrite(train, train.read_bytes()[:-3])
    held_out.unlink()
    (home / CARD).unlink()
    (home / "train" / "more.parquet").write_bytes(b"x")
    assert [problem.split()[0] for problem in versions.verify(found.id)] == [
        "train/part-00000.parquet",
        "validation/part-00000.parquet",
        CARD,
        "train/more.parquet",
    ]
    (home / MANIFEST).unlink()
    [problem] = versions.verify(found.id)
    assert "no whole version" in problem


def test_a_version_under_another_name_is_found(datasets: Place) -> None:
    """A folder that was renamed does not hold what its name says."""
    found = publish(datasets, table(range(50)))
    folder(datasets, found.id).rename(folder(datasets, "0" * 16))
    [problem] = Versions(datasets).verify("0" * 16)
    assert found.id in problem


def test_a_manifest_of_a_newer_release_is_not_taken_for_damage(datasets: Place) -> None:
    """Fields that are not known here are told as what they are."""
    found = publish(datasets, table(range(50)))
    path = folder(datasets, found.id) / MANIFEST
    overwrite(path, json.dumps({**json.loads(path.read_text()), "novelty": 1}).encode())
    assert refusal(lambda: Versions(datasets).get(found.id)).code == "other_form"


def test_a_new_field_at_its_default_changes_no_name() -> None:
    """The id is of what is said, so that a later release finds old versions sound."""
    plain = Manifest(query=QUERY, counts={"rows": 1})
    assert plain.named().id == Manifest(query=QUERY, counts={"rows": 1}, parents=[]).named().id
    assert plain.named().id != plain.model_copy(update={"parents": ["a"]}).named().id


def test_an_old_version_is_sound_for_a_release_with_more_fields(
    datasets: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A manifest is compared as far as it was written."""
    found = publish(datasets, table(range(5)))

    class Later(Manifest):
        novelty: int = 0

    monkeypatch.setattr(versions, "Manifest", Later)
    assert Versions(datasets).verify(found.id) == []
    path = folder(datasets, found.id) / MANIFEST
    overwrite(path, path.read_bytes().replace(b'"rows": 5', b'"rows":  5'))
    assert refusal(lambda: Versions(datasets).get(found.id)).code == "damaged"


# --- found ------------------------------------------------------------------------------------


def test_versions_are_listed_newest_first(datasets: Place) -> None:
    """And those that are damaged are told apart, with why."""
    versions = Versions(datasets)
    assert versions.list() == []
    found = [publish(datasets, table(range(n)), created_at=float(n)) for n in (20, 30, 10)]
    assert names(versions.list()) == [found[1].id, found[0].id, found[2].id]
    overwrite(folder(datasets, found[0].id) / MANIFEST, b"{")
    assert names(versions.list()) == [found[1].id, found[2].id]
    assert list(versions.damaged()) == [found[0].id]
    assert versions.get("latest") == found[1]


def test_a_version_is_found_by_how_its_id_begins(datasets: Place) -> None:
    """What is not there is refused with the nearest that is, and what is ambiguous with both."""
    versions, found = Versions(datasets), publish(datasets, table(range(20)))
    assert versions.get(found.id) == versions.get(found.id[:6]) == found
    wrong = found.id[:-1] + ("0" if found.id[-1] != "0" else "1")
    assert found.id in str(refusal(lambda: versions.get(wrong)))
    assert refusal(lambda: versions.get("")).code == "missing"
    assert refusal(lambda: versions.get("../web")).code == "missing"
    twin = found.id[:8] + "f" * 8
    folder(datasets, twin).mkdir()
    assert twin in str(refusal(lambda: versions.get(found.id[:8])))


def test_where_there_is_none_yet_the_error_says_how_to_get_one(datasets: Place) -> None:
    """`latest` of nothing names the command."""
    assert "dataset compile" in str(refusal(lambda: Versions(datasets).get("latest")))


def test_a_removed_version_is_gone(datasets: Place) -> None:
    """Others stay; and nothing outside can be named."""
    versions = Versions(datasets)
    first, second = (publish(datasets, table(range(n))) for n in (20, 30))
    versions.remove(first.id)
    assert names(versions.list()) == [second.id]
    assert [path.name for path in folder(datasets).iterdir()] == [second.id]
    for name in (first.id, "..", ".", ""):
        assert refusal(lambda name=name: versions.remove(name)).code == "missing"
    assert versions.verify(second.id) == []


@pytest.mark.parametrize("query", [QUERY, LINES], ids=["parquet", "jsonl"])
def test_versions_that_hold_a_signal_are_found(datasets: Place, query: Query) -> None:
    """In either split, in either format; and no others."""
    first = publish(datasets, table(range(20)), query=query)
    second = publish(datasets, table(range(10)), table(range(20, 30)), query=query)
    versions, signals = Versions(datasets), table(range(40))["signal"].to_pylist()
    assert set(versions.holding(signals[5:6])) == {first.id, second.id}
    assert versions.holding([signals[25], "1-1"]) == [second.id]
    assert versions.holding(signals[15:16]) == [first.id]
    assert versions.holding(signals[30:]) == []
    assert versions.holding([]) == []


def test_a_version_that_cannot_be_read_may_hold_anything(datasets: Place) -> None:
    """Who looks for what a person said is told of it, damaged as it is."""
    a, b, c = (publish(datasets, table(range(n))) for n in (20, 21, 22))
    overwrite(folder(datasets, a.id) / a.files[0].path, b"PAR1")
    (folder(datasets, b.id) / MANIFEST).unlink()
    assert set(Versions(datasets).holding(["1-1"])) == {a.id, b.id}
    assert Versions(datasets).verify(c.id) == []


def test_what_was_left_by_those_who_were_killed_is_cleared(datasets: Place) -> None:
    """A draft of a process that is gone goes with the next one; one that is alive stays."""
    program = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from the_versions import SCHEMA, table
from online_learner.archive.place import Place
from online_learner.dataset.versions import Draft
draft = Draft(Place.open({str(folder(datasets))!r}))
sink = draft.sink("train", SCHEMA, "jsonl")
sink.write(table(range(20_000)))
os.kill(os.getpid(), signal.SIGKILL)
"""
    killed = subprocess.run([sys.executable, "-c", program], check=False)
    assert killed.returncode == -signal.SIGKILL
    [left] = folder(datasets).iterdir()
    assert any(path.stat().st_size > 0 for path in left.rglob("*.jsonl"))
    assert Versions(datasets).list() == []
    with Draft(datasets) as alive:
        alive.scratch.write("part", b"x")
        assert not left.exists()
        publish(datasets, table(range(5)))
        assert alive.scratch.read("part") == b"x"


def test_a_version_that_was_being_removed_does_not_stay(datasets: Place) -> None:
    """Whoever looks for what is held of a person, or compiles, ends what was cut short."""
    found = publish(datasets, table(range(5)))
    moved = folder(datasets, f"{PARTIAL}0123456789ab")
    folder(datasets, found.id).rename(moved)
    assert Versions(datasets).holding(["1-1"]) == []
    assert not moved.exists()


# --- compared ---------------------------------------------------------------------------------


@pytest.mark.parametrize("at_once", [1_000_000, 7])
def test_rows_added_removed_and_changed_are_counted(
    datasets: Place, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    """Rows are told apart by prediction and signal, in one go or in many parts."""
    monkeypatch.setattr(comparing, "PART_ROWS", at_once)
    a = publish(datasets, table(range(100)), table(range(100, 110)))
    mixed = pa.concat_tables([table(range(5, 90)), table(range(90, 100), weight=0.5)])
    query = QUERY.model_copy(update={"seed": 3})
    b = publish(datasets, mixed, table(range(100, 140)), query=query, excluded={"late": 1})
    found = Versions(datasets).diff(a.id, b.id)
    assert (found.added, found.removed, found.changed, found.same) == (30, 5, 10, 95)
    assert found.fields["query"] == {"seed": [0, 3]}
    assert found.fields["splits"] == {"train": [100, 95], "validation": [10, 40]}
    assert found.fields["excluded"] == {"late": [None, 1]}
    assert "files" not in found.fields


def test_several_rows_of_one_signal_are_counted_as_often(datasets: Place) -> None:
    """A ranking gives many pairs under one signal."""
    one, three = table([1, 2]), pa.concat_tables([table([1, 1, 1]), table([2], weight=0.5)])
    a, b = publish(datasets, one), publish(datasets, three)
    found = Versions(datasets).diff(a.id, b.id)
    assert (found.added, found.removed, found.changed, found.same) == (2, 0, 1, 1)


def test_formats_of_files_do_not_matter_to_rows(datasets: Place) -> None:
    """The same rows in Parquet and in JSONL are the same rows."""
    a, b = (publish(datasets, table(range(50)), query=query) for query in (QUERY, LINES))
    found = Versions(datasets).diff(a.id, b.id)
    assert (found.added, found.removed, found.changed, found.same) == (0, 0, 0, 50)
    assert found.fields == {"query": {"file_format": ["parquet", "jsonl"]}}


# --- read -------------------------------------------------------------------------------------


def test_rows_are_read_alike_from_both_formats(datasets: Place) -> None:
    """In order, with JSON as objects and times as times; as tables with the manifest's columns."""
    versions = Versions(datasets)
    found = [publish(datasets, table(range(50)), query=query) for query in (QUERY, LINES)]
    first, second = (list(rows(versions, manifest.id)) for manifest in found)
    assert first == second
    assert first[7]["features"] == {"a": 7, "text": "Grüße\n7"}
    assert [row["at"].timestamp() for row in first[:2]] == [1_700_000_000.0, 1_700_000_000.001]
    for manifest in found:
        batches = list(tables(versions, manifest.id, "train", batch_rows=20))
        assert [batch.num_rows for batch in batches] == [20, 20, 10]
        whole = pa.concat_tables(batches)
        assert whole.schema.equals(SCHEMA)
        assert whole.equals(table(range(50)))


def test_nothing_is_read_of_a_damaged_file(datasets: Place) -> None:
    """Not one row comes before the error, which names the file."""
    found = publish(datasets, table(range(50)))
    path = folder(datasets, found.id) / found.files[0].path
    data = bytearray(path.read_bytes())
    data[random.Random(0).randrange(len(data))] ^= 1
    overwrite(path, bytes(data))
    error = refusal(lambda: next(rows(Versions(datasets), found.id)))
    assert "part-00000" in str(error)
    assert error.code == "damaged"


def test_a_split_that_is_not_there_is_told(datasets: Place) -> None:
    """With those that are."""
    found = publish(datasets, table(range(50)))
    error = refusal(lambda: next(rows(Versions(datasets), found.id, "validation")))
    assert "train" in str(error)
    assert error.code == "missing"


# --- the card ---------------------------------------------------------------------------------


def test_the_card_tells_what_the_manifest_says() -> None:
    """Counts, what was left out, balance, who speaks, raters, and where it is from."""
    manifest = Manifest(
        query=QUERY.model_copy(update={"where": "weight > 0.5"}),
        watermarks={"feedback": "17-3"},
        counts={"predictions": 12_345, "signals": 99, "rows": 90},
        by_kind={"thumbs": 30, "correction": 60},
        excluded={"superseded": 9},
        balance={"true": 60, "false": 30},
        splits={"train": 90},
        response={"spam": {"answers": 400, "answered": 100}},
        raters={"human:a|b": {"rows": 80, "weight": 0.75}, "others": {"rows": 10, "weight": 1.0}},
        config_sha256="c" * 64,
        code_sha256="d" * 64,
        libraries={"pyarrow": "26.0.0"},
        parents=["0123456789abcdef"],
    ).named()
    card = render(manifest)
    for line in (
        "| predictions | 12,345 |",
        "| correction | 60 |\n| thumbs | 30 |",
        "| superseded | 9 |",
        "| true | 60 | 66.7% |",
        "| spam | 400 | 100 | 25.0% |",
        "| human:a\\|b | 80 | 0.75 |",
        "| feedback up to | 17-3 |",
        "| pyarrow | 26.0.0 |",
        "| parent 1 | 0123456789abcdef |",
    ):
        assert line in card, card
    later = manifest.model_copy(update={"created_at": 5.0, "took_s": 1.0, "workers": 2})
    assert render(later) == card


def test_a_card_names_no_more_than_fits_a_page() -> None:
    """Of many labels and raters it has the most frequent, and says how many more there are."""
    many = {f"label{n}": 1000 - n for n in range(500)}
    card = render(Manifest(query=QUERY, balance=many).named())
    assert "| label0 |" in card
    assert "label499" not in card
    assert "480 more are in the manifest." in card
