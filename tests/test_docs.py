"""The pages in `docs/`: their code runs, and what they name is there."""

from __future__ import annotations

import importlib
import random
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from online_learner.checks import check_policy
from online_learner.cli import app
from online_learner.loop import Loop
from online_learner.schema import Feedback, Prediction
from online_learner.settings import Settings
from online_learner.stages import check_model
from online_learner.store import Store

ROOT = Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", flags=re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)#\s]+)")
pages = pytest.mark.parametrize("page", [pytest.param(page, id=page.stem) for page in PAGES])


def blocks(page: str, language: str) -> list[str]:
    """Return the blocks of a page in one language."""
    text = (ROOT / "docs" / page).read_text()
    return [code for found, code in BLOCK.findall(text) if found == language]


OBSERVING = blocks("observing.md", "yaml")


def prose(page: Path) -> str:
    """Return a page without its blocks."""
    return re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@pages
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of this repository has a file at its end."""
    for link in LINK.findall(page.read_text()):
        assert link.startswith("https://") or (page.parent / link).exists(), link


@pages
def test_paths_exist(page: Path) -> None:
    """A path in backticks that names a folder of the house leads somewhere."""
    roots = "online_learner|serve_app|policies|examples|benchmarks|deploy|docs|tests"
    for path in re.findall(rf"`((?:{roots})/[\w./-]*)`", prose(page)):
        assert (ROOT / path).exists(), path


@pages
def test_commands_exist(page: Path) -> None:
    """Every command of `online-learner` that a page speaks of is one."""
    typer = importlib.import_module("typer.main")
    known = set(typer.get_command(app).commands)
    named = set(re.findall(r"online-learner (?!=)([a-z]+)", page.read_text()))
    assert named - known == set()


@pages
def test_make_targets_exist(page: Path) -> None:
    """`make` knows what a page says to type."""
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)", page.read_text()):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


# --- the how-to of policies -------------------------------------------------------------------


@pytest.fixture
def my_team(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Return the module that the pages on policies and observers write."""
    code = [*blocks("policies.md", "python"), *blocks("observing.md", "python")]
    parts = [block.removeprefix("# my_team.py\n") for block in code]
    (tmp_path / "my_team.py").write_text("\n\n".join(parts))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "my_team", raising=False)
    return importlib.import_module("my_team")


@pytest.fixture
async def tickets(
    my_team: ModuleType,
    make_settings: Callable[..., Settings],
    store: Store,
    clock: Callable[[], float],
) -> Any:
    """Return a loop with the configuration of the page on policies."""
    [document] = map(yaml.safe_load, blocks("policies.md", "yaml"))
    settings = make_settings(**document["models"])
    return await Loop.open(settings, clock=clock, rng=random.Random(0))


def test_the_policy_of_the_page_keeps_the_laws(my_team: ModuleType) -> None:
    """Its promotion policy is held against every law."""
    check_policy(my_team.Cautious())


async def test_the_policies_of_the_page_are_asked(tickets: Loop) -> None:
    """In a running loop the hasty are set aside, and who shouts is flagged."""
    async with tickets as loop:
        calm = await loop.predict("tickets", {"text": "the invoice is wrong"})
        loud = await loop.predict("tickets", {"text": "THE INVOICE IS WRONG AGAIN"})
        assert [flag["rule"] for flag in loud["flags"]] == ["my_team:shouting"]
        assert not calm["flags"]
        await loop.feedback(calm["prediction_id"], "correction", "billing")
        await loop.turn("tickets")
        keys = loop.stages("tickets").registry.keys
        [(_, aside)] = await loop.store.latest(keys.quarantine, 10)
        assert b"hasty" in b" ".join(aside.values())


def test_the_table_of_the_page_weighs_editors(my_team: ModuleType) -> None:
    """What an editor says counts three times what others say."""
    table = my_team.Editors("classification", ["bug", "praise"])
    answer = Prediction(
        model="tickets", features={"text": "thanks"}, output="bug", version=1, lineage=1, step=1
    )

    def weight(tags: dict[str, str]) -> float:
        said = Feedback(
            kind="correction", value="praise", source="human:ada", prediction_id="p", tags=tags
        )
        found: float = table.lesson(said, answer).weight
        return found

    assert weight({"role": "editor"}) == 3 * weight({})


@pytest.mark.parametrize("part", [pytest.param(p, id=str(n)) for n, p in enumerate(OBSERVING)])
def test_the_configuration_of_observers_is_taken(
    part: str, make_settings: Callable[..., Settings]
) -> None:
    """Each block of the page on observers is a part of a model, and all that it names can be."""
    check_model(make_settings(web=yaml.safe_load(part)).models["web"])


async def test_the_observer_of_the_page_looks_on(
    my_team: ModuleType, make_settings: Callable[..., Settings], store: Store
) -> None:
    """In a running loop it counts the comments, and reports what the default does as well."""
    settings = make_settings(web={"observe": {"implicit": "my_team:Comments"}})
    async with await Loop.open(settings) as loop:
        answer = await loop.predict("web", {"a": 1.0})
        await loop.feedback(answer["prediction_id"], "thumbs", False, comment="it rained")
        await loop.turn("web")
        kept = await loop.stages("web").registry.observations()
        assert kept is not None
        assert kept[1]["implicit"]["explained"] == 1
        assert kept[1]["implicit"]["events"] == []
