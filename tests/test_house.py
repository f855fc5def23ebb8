"""The house itself: who may import whom, what is documented, and whether the README is true."""

from __future__ import annotations

import ast
import importlib
import os
import random
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from online_learner.loop import Loop
from online_learner.settings import Settings

ROOT = Path(__file__).parent.parent
PACKAGES = ("online_learner", "serve_app", "policies", "examples")
FILES = sorted(file for package in PACKAGES for file in (ROOT / package).rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("test_*.py"))
MAX_LINES = 400

# From the ground up; a room may use those below it and beside it. A room that is not named is a
# stage, and stands between the learners and the loop.
FLOORS = [
    {"errors", "chat", "note", "secret"},
    {"ids", "schema", "requests"},
    {"settings", "evidence"},
    {"store", "learners"},
    {"a stage"},
    {"loop"},
    {"checks", "client", "cli", "demo", "metrics", "dataset", "importing", "retrain", "evaluate"},
]
NAMED = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
RAY_AND_HTTP = {"ray", "starlette", "fastapi", "uvicorn", "serve_app", "policies", "examples"}
HEAVY = {"torch", "safetensors", "matplotlib"}
TORCH = "online_learner.learners.torch"  # the room whose modules may


def module_name(file: Path) -> str:
    """Return the dotted name of a file."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(tree: ast.AST, *, late: bool) -> Iterator[str]:
    """Yield the dotted names that a module imports.

    With `late`, those inside functions as well, and those that only the type checker sees.
    """
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING" and not late:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute in this house"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif late or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from imported(node, late=late)


def parse(file: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(file.read_text(), str(file))


def room(name: str) -> str:
    """Return the room of a module: the part of its name after the package."""
    return name.split(".")[1] if "." in name else ""


def floor(name: str) -> int:
    """Return on which floor a module stands."""
    return NAMED.get(room(name), NAMED["a stage"])


def of(package: str) -> list[Any]:
    """Return the files of a package as parameters named after the modules."""
    files = [file for file in FILES if file.is_relative_to(ROOT / package)]
    return [pytest.param(file, id=module_name(file)) for file in files]


# --- who may import whom ----------------------------------------------------------------------


@pytest.mark.parametrize("file", of("online_learner"))
def test_rooms_use_only_what_is_below_them(file: Path) -> None:
    """Imports of the library, the late ones as well, go down or stay on their floor."""
    own = module_name(file)
    for name in imported(parse(file), late=True):
        if name.startswith("online_learner."):
            assert floor(name) <= floor(own), f"{own} imports {name}"


@pytest.mark.parametrize("file", of("online_learner"))
def test_the_library_knows_neither_ray_nor_http(file: Path) -> None:
    """Importing it takes neither Ray, nor a web framework, nor what stands on top of it."""
    found = {name.split(".")[0] for name in imported(parse(file), late=False)}
    needs_torch = module_name(file).startswith(TORCH)
    assert not found & (RAY_AND_HTTP | (HEAVY - {"torch", "safetensors"} if needs_torch else HEAVY))


@pytest.mark.parametrize("file", of("policies"))
def test_policies_know_records_and_evidence_only(file: Path) -> None:
    """A policy can be read and tested without the rest of the house."""
    for name in imported(parse(file), late=True):
        top = name.split(".")[0]
        if top in {"online_learner", "serve_app", "examples"}:
            assert re.match(r"online_learner\.(schema|evidence)\.", name), name
        else:
            libraries = {"jsonschema", "numpy", "pydantic", "referencing", "river"}
            assert top in sys.stdlib_module_names | libraries | {"policies"}, name


@pytest.mark.parametrize(
    "file", [p for p in of("online_learner") if "evidence" in Path(p.values[0]).parts]
)
def test_evidence_is_numpy_and_nothing_else(file: Path) -> None:
    """The statistics need no more than numbers, and the records that they speak of."""
    for name in imported(parse(file), late=True):
        assert name.split(".")[0] in sys.stdlib_module_names | {"numpy"} or re.match(
            r"online_learner\.(schema|evidence)\.", name
        )


def test_imports_form_no_circle() -> None:
    """No module needs, at import, one that needs it."""
    names = {module_name(file) for file in FILES}
    graph = {
        module_name(file): {
            found
            for name in imported(parse(file), late=False)
            for found in (name, name.rpartition(".")[0])
            if found in names and found != module_name(file)
        }
        for file in FILES
    }
    # A package's own `__init__` may gather what its modules define, and they may use it.
    done: set[str] = set()
    while ready := {
        n for n in graph if n not in done and graph[n] - {n.rpartition(".")[0]} <= done
    }:
        done |= ready
    assert set(graph) - done == set()


def test_the_library_runs_where_ray_and_http_are_not_installed() -> None:
    """Every module of it can be imported in a process that cannot import them."""
    names = [module_name(file) for file in FILES if file.is_relative_to(ROOT / "online_learner")]
    names = [name for name in names if not name.endswith("__main__")]
    names = [name for name in names if not name.startswith(f"{TORCH}.")]
    program = f"""
import importlib, sys
for name in {sorted(RAY_AND_HTTP | HEAVY)!r}:
    sys.modules[name] = None
for name in {names!r}:
    importlib.import_module(name)
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)


# --- what is written down ---------------------------------------------------------------------


def public(tree: ast.Module) -> Iterator[ast.AST]:
    """Yield a module, its public classes and functions, and their public methods."""
    yield tree
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name.startswith("_"):
                continue
            yield node
            if isinstance(node, ast.ClassDef):
                yield from (
                    member
                    for member in node.body
                    if isinstance(member, ast.FunctionDef | ast.AsyncFunctionDef)
                    and not member.name.startswith("_")
                )


@pytest.mark.parametrize("file", [p for package in PACKAGES for p in of(package)])
def test_everything_public_is_described(file: Path) -> None:
    """Modules, classes, functions and methods say what they are for."""
    if not file.read_text():
        assert file.name == "__init__.py"
        return
    for node in public(parse(file)):
        name = getattr(node, "name", "the module")
        assert ast.get_docstring(node), f"{name} has no docstring"  # type: ignore[arg-type]


@pytest.mark.parametrize("file", [p for package in PACKAGES for p in of(package)])
def test_no_module_is_long(file: Path) -> None:
    """What grows beyond a few screens is split."""
    assert len(file.read_text().splitlines()) <= MAX_LINES


@pytest.mark.parametrize("file", [pytest.param(f, id=f.stem) for f in TESTS])
def test_every_test_says_what_it_shows(file: Path) -> None:
    """Each test has a docstring of one line: the behaviour, as a sentence."""
    for node in ast.walk(parse(file)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and re.match("test", node.name):
            text = ast.get_docstring(node) or ""
            assert text, f"{node.name} has no docstring"
            assert text.endswith("."), f"the docstring of {node.name} is no sentence"
            assert "\n" not in text, f"the docstring of {node.name} is longer than a line"


def test_the_package_says_that_it_is_typed() -> None:
    """`py.typed` and the scripts travel with the package."""
    found = importlib.import_module("online_learner")
    home = Path(found.__path__[0])
    assert (home / "py.typed").exists()
    assert list((home / "store" / "lua").glob("*.lua"))


# --- the README -------------------------------------------------------------------------------

README = ROOT / "README.md"
TEXT = README.read_text() if README.exists() else ""
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", TEXT, flags=re.DOTALL | re.MULTILINE)
SPANS = sorted(
    set(
        re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE))
    )
)
DOTTED = rf"\b(?:{'|'.join(PACKAGES)})\.(?!py\b|md\b)\w+(?:\.\w+)*(?::\w+)?"
needs_readme = pytest.mark.skipif(not README.exists(), reason="there is no README yet")


def spans(pattern: str) -> list[str]:
    """Return what stands in backticks in the README and is of some form."""
    return [span for span in SPANS if re.fullmatch(pattern, span)]


@needs_readme
@pytest.mark.parametrize("path", spans(r"[\w./-]+\.(py|yaml|md|toml|txt|lua)|[\w./-]+/"))
def test_files_of_the_readme_exist(path: str) -> None:
    """A path in backticks leads somewhere."""
    places = [ROOT, ROOT / "serve_app", ROOT / "docs"]
    assert any((place / path).exists() for place in places)


@needs_readme
@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)#\s]+)", TEXT))))
def test_links_of_the_readme_lead_somewhere(link: str) -> None:
    """A link to a file of this repository has a file at its end."""
    assert link.startswith("https://") or (ROOT / link).exists()


@needs_readme
@pytest.mark.parametrize("name", sorted(set(re.findall(DOTTED, TEXT))))
def test_names_of_the_readme_can_be_imported(name: str) -> None:
    """A dotted name is a module, or with a colon something in one."""
    path, _, attribute = name.partition(":")
    found = importlib.import_module(path)
    assert not attribute or hasattr(found, attribute)


@needs_readme
def test_commands_of_the_readme_exist() -> None:
    """Every command of `online-learner` that the README speaks of is one."""
    cli = importlib.import_module("online_learner.cli")
    typer = importlib.import_module("typer.main")
    known = set(typer.get_command(cli.app).commands)
    named = set(re.findall(r"online-learner (?!=)([a-z]+)", TEXT))
    listed = re.search(r"On the command line: (.*?)\n\n", TEXT, flags=re.DOTALL)
    if listed:
        named |= set(re.findall(r"`(?:online-learner )?([a-z]+)`", listed[1]))
    assert named - known == set()


@needs_readme
@pytest.mark.parametrize("variable", sorted(set(re.findall(r"\b(?:OL|REDIS)_[A-Z_]+\b", TEXT))))
def test_variables_of_the_readme_are_read(variable: str) -> None:
    """An environment variable that is named is a setting, or is read somewhere."""
    field = variable.removeprefix("OL_").lower()
    source = "".join(file.read_text() for file in FILES)
    assert field in Settings.model_fields or f'"{variable}"' in source


@needs_readme
@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+)", TEXT))))
def test_make_targets_of_the_readme_exist(target: str) -> None:
    """`make` knows what the README says to type."""
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)


@needs_readme
@pytest.mark.parametrize(
    "code",
    [pytest.param(code, id=str(n)) for n, (lang, code) in enumerate(BLOCKS) if lang == "python"],
)
def test_python_of_the_readme_names_what_exists(code: str) -> None:
    """Its blocks are Python, and what they import from this house is there."""
    for name in imported(ast.parse(code), late=True):
        if name.split(".")[0] in PACKAGES:
            module, _, attribute = name.rpartition(".")
            assert hasattr(importlib.import_module(module), attribute)


@needs_readme
async def test_the_example_of_the_readme_learns(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_settings: Callable[..., Settings],
    store: Any,
    clock: Callable[[], float],
) -> None:
    """The learner and the configuration of the README, as they stand there, learn what is said."""
    files: dict[str, str] = {}
    for _, code in BLOCKS:
        if found := re.match(r"# (\w+\.(?:py|yaml))\n", code):
            files[found[1]] = code
    assert "loop.yaml" in files, "the README shows no configuration"
    for name, code in files.items():
        (tmp_path / name).write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    document = yaml.safe_load(files["loop.yaml"])
    settings = make_settings(**document["models"])
    async with await Loop.open(settings, clock=clock, rng=random.Random(0)) as loop:
        [(model, spec)] = settings.models.items()
        assert spec.labels is not None
        for n in range(60):
            features = {"length": 20.0 * (n % 2), "exclamations": 4 * (n % 2)}
            answer = await loop.predict(model, features)
            await loop.feedback(answer["prediction_id"], "correction", spec.labels[n % 2])
        await loop.turn(model)
        assert await loop.store.call("XLEN", loop.stages(model).registry.keys.quarantine) == 0
        learner = loop.stages(model).trainer.learner
        answers = learner.predict([{"length": 20.0 * n, "exclamations": 4 * n} for n in (0, 1)])
        assert [answer.output for answer in answers] == spec.labels


def test_nothing_is_left_of_how_it_was_made() -> None:
    """No file of the house names a place that only its makers have."""
    places = re.compile(r"(?<![\w.])/(?:work|root|home/\w+)/|/tmp/\w")
    for file in [*FILES, *TESTS, *filter(Path.exists, [README, ROOT / "Makefile"])]:
        if file != Path(__file__):
            assert not places.search(file.read_text()), file.name
    assert os.sep == "/"
