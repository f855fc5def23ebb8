"""By what a version was compiled: configuration, code, and libraries, as hashes and numbers."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from online_learner.schema import canonical
from online_learner.settings import ModelSpec

LIBRARIES = ("online-learner", "pyarrow", "numpy", "pydantic")
_ELSEWHERE = {"archive", "resources", "retrain", "unlearn_horizon", "on_gpu_missing", "limits"}
_OURS = ("dataset", "archive/form.py", "interpret.py", "weigh.py", "schema", "chat.py", "evidence")
_NO_ROWS = {  # of ours: they name versions, find, read and describe them
    *("card.py", "comparing.py", "lessons.py", "manifest.py", "provenance.py"),
    *("reading.py", "running.py", "verifying.py", "versions.py"),
}


def config_sha256(spec: ModelSpec) -> str:
    """Return the hash of what a model's configuration says of its rows.

    Where it runs, and where its files are, is left out.
    """
    document = spec.model_dump(mode="json", exclude=_ELSEWHERE)
    return hashlib.sha256(canonical(document).encode()).hexdigest()


def code_sha256(spec: ModelSpec) -> str:
    """Return the hash of the sources that make rows: ours, and the policies that a model names.

    Of these, the modules named and all that they import of the same package.
    """
    named = [spec.signals, spec.validation.use, *(f.use for f in spec.observe.lenses().values())]
    ours = Path(__file__).parent.parent
    found = {
        f"online_learner/{path.relative_to(ours)}": path
        for name in _OURS
        for path in _sources(ours / name)
        if path.name not in _NO_ROWS
    }
    for module in named:
        found |= _imported(module.partition(":")[0])
    digest = hashlib.sha256()
    for name, path in sorted(found.items()):
        digest.update(f"{name}\0{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def libraries() -> dict[str, str]:
    """Return the versions of the libraries that the bytes of a version depend on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "unknown"
    return found


def _sources(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(place.rglob("*.py"))


def _imported(module: str) -> dict[str, Path]:
    """Return the sources of a module, and of what it imports of its package, by their names."""
    root, waiting, found = module.partition(".")[0], [module], dict[str, Path]()
    while waiting and root != "online_learner":
        name = waiting.pop()
        path = None if name in found else _source(name)
        if path is None:
            continue
        found[name] = path
        parent = name.rpartition(".")[0]
        package = name if path.name == "__init__.py" else parent
        wanted = [each for node in ast.walk(_tree(path)) for each in _names(node, package)]
        waiting += [each for each in (*wanted, parent) if each.partition(".")[0] == root]
    return found


def _source(module: str) -> Path | None:
    """Return the file of a module; None where there is no such module, or no file of it."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # what it should be in is no package
        return None
    path = None if spec is None or not spec.has_location or spec.origin is None else spec.origin
    return None if path is None else Path(path)


def _tree(path: Path) -> ast.AST:
    return ast.parse(path.read_bytes() if path.suffix == ".py" else b"")


def _names(node: ast.AST, package: str) -> list[str]:
    """Return the names of modules that a statement may import; some of them are none."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
    base = ".".join([*above, *([node.module] if node.module else [])])
    return [base, *(f"{base}.{alias.name}" for alias in node.names)]
