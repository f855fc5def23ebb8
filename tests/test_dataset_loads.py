"""Every format, read in one line by the libraries it is for; and the page on datasets, followed."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from typer.testing import CliRunner

from benchmarks.data.consumers import CASES, MODELS, compile_one, misfits, offline, settings, talk
from online_learner import config, store
from online_learner.cli import app
from online_learner.dataset.card import loads
from online_learner.dataset.manifest import Manifest
from online_learner.dataset.reading import rows
from online_learner.dataset.versions import Versions
from online_learner.loop import Loop
from online_learner.store.embedded import EmbeddedServer

PAGE = (Path(__file__).parent.parent / "docs" / "datasets.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
FILES = ("parquet", "jsonl")
VERSIONS = [(*case, files) for case in CASES for files in FILES]

Compiled = dict[tuple[str, str, str], tuple[Manifest, Versions]]


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    """Return a data directory with a log that fills every format."""
    with pytest.MonkeyPatch.context() as patched, tempfile.TemporaryDirectory() as folder:
        patched.setattr(store, "TIMEOUT_S", 10.0)
        server = EmbeddedServer.ensure(Path(folder))
        try:
            asyncio.run(_speak(server.url, Path(folder)))
            yield Path(folder)
        finally:
            server.stop()


async def _speak(url: str, folder: Path) -> None:
    async with await Loop.open(settings(url, folder)) as loop:
        await config.publish(loop.store, loop.keyring, loop.settings)
        await talk(loop)


@pytest.fixture(scope="module")
def compiled(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    """Return a version of every format, in both formats of files."""
    place = tmp_path_factory.mktemp("compiled")

    async def work() -> Compiled:
        server = EmbeddedServer.ensure(home)
        async with await Loop.open(settings(server.url, home)) as loop:
            return {version: await compile_one(loop, *version, place) for version in VERSIONS}

    return asyncio.run(work())


@pytest.mark.parametrize(("model", "form", "files"), VERSIONS)
def test_trainers_find_the_columns_that_they_expect(
    compiled: Compiled, tmp_path: Path, model: str, form: str, files: str
) -> None:
    """`datasets` finds both splits by the path alone, and features of the types that TRL takes."""
    manifest, versions = compiled[model, form, files]
    path = str(versions.place(manifest.id).local)
    with offline(tmp_path):
        found = datasets.load_dataset(path)
    assert {split: len(part) for split, part in found.items()} == manifest.splits
    assert misfits(found["train"].features, form) == []
    assert list(found["train"].features) == list(manifest.columns)
    ours = next(rows(versions, manifest.id))
    theirs = found["train"][0]
    for name, kind in manifest.columns.items():
        if kind == "json" and files == "parquet":
            theirs[name] = json.loads(theirs[name])
        # Of JSONL with columns of objects, `datasets` keeps ten digits of a number.
        assert rounded(theirs[name]) == rounded(ours[name]), name


def rounded(value: Any) -> Any:
    """Return a value with nine digits of each number."""
    if isinstance(value, dict):
        return {name: rounded(part) for name, part in value.items()}
    return float(f"{value:.9g}") if isinstance(value, float) else value


def test_chats_are_messages_and_prompts_are_texts(compiled: Compiled, tmp_path: Path) -> None:
    """The same signals on a chat and on a prompt make conversational and standard rows."""
    for form, column in (("preference", "chosen"), ("unpaired", "completion"), ("sft", "prompt")):
        for model, kind in (("texts", str), ("chats", list)):
            manifest, versions = compiled[model, form, "parquet"]
            first = next(rows(versions, manifest.id))
            assert isinstance(first[column], kind)
            if kind is list:
                assert set(first[column][0]) == {"role", "content"}


def test_what_a_trainer_would_not_take_is_told() -> None:
    """The check itself finds a column that is missing, of another type, or half of it messages."""
    text = datasets.Value("string")
    messages = datasets.List({"role": text, "content": text})
    for features in (
        {"prompt": text, "chosen": text},
        {"prompt": text, "chosen": text, "rejected": datasets.Value("int64")},
        {"prompt": text, "chosen": messages, "rejected": messages},
    ):
        assert misfits(datasets.Features(features), "preference")
    label = {"prompt": text, "completion": text, "label": datasets.Value("int64")}
    assert misfits(datasets.Features(label), "unpaired")


@pytest.mark.parametrize(("model", "form", "files"), VERSIONS)
def test_pandas_reads_it_in_one_line(compiled: Compiled, model: str, form: str, files: str) -> None:
    """The line of the card gives all rows of the split, in the manifest's columns."""
    manifest, versions = compiled[model, form, files]
    line = loads(manifest, str(versions.place(manifest.id).local))["pandas"]
    frame = eval(line, {"pandas": pd})
    assert len(frame) == manifest.splits["train"]
    assert list(frame.columns) == list(manifest.columns)
    if files == "jsonl":
        frame["at"] = pd.to_datetime(frame["at"])
    for name, kind in manifest.columns.items():
        ours = [row[name] for row in rows(versions, manifest.id)]
        if kind == "json" and files == "parquet":
            assert [json.loads(cell) for cell in frame[name]] == ours
        elif not kind.startswith("list"):
            assert frame[name].tolist() == ours, name


@pytest.mark.ray
def test_the_page_is_true(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commands do what it says, its code loads what they made, and Ray reads it as well."""
    monkeypatch.setenv("OL_DATA_DIR", str(home))
    monkeypatch.setattr(store, "TIMEOUT_S", 10.0)
    code = []
    for language, text in BLOCK.findall(PAGE):
        if language == "bash":
            _follow(text)
        elif language == "python":
            code.append(text)
    place = home / "datasets" / "labels"
    path = next(p for p in place.iterdir() if "where" not in (p / "README.md").read_text())
    program = "\n".join(
        [
            f"PATH, DATASETS = {str(path)!r}, {str(place)!r}",
            "from serve_app.jobs.runner import RayRunner",
            "with RayRunner(1) as runner:",
            "    runner.start()",
            *(f"    {line}" for line in "\n".join(code).splitlines()),
            "    assert blocks.count() == len(frame) == len(splits['train']), blocks.count()",
            "    assert 0 < total",
        ]
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]


def _follow(text: str) -> None:
    """Run the commands of a block on the page, with a model that there is."""
    for line in text.replace("\\\n", " ").splitlines():
        [command, *words] = shlex.split(line, comments=True)
        assert command == "online-learner"
        known = ["labels" if word == "web" else word for word in words]
        result = CliRunner().invoke(app, known)
        assert result.exit_code == 0, f"{line}\n{result.output}"
    assert "labels" in MODELS
