"""What the pickles of a model do: how they are written, what they name, and what they call."""

from __future__ import annotations

import copyreg
import io
import pickle
import sys
import types
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from online_learner.learners.constructors import Name

_PLAIN: dict[str, str] = {
    "builtins": "bool bytearray bytes complex dict float frozenset int iter list set slice str "
    "tuple range",
    "collections": "Counter OrderedDict defaultdict deque",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "functools": "partial",
    "random": "Random",
    "statistics": "NormalDist",
    "uuid": "UUID",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64",
    "numpy.random._pickle": "__bit_generator_ctor __generator_ctor __randomstate_ctor",
    "numpy.random.bit_generator": "SeedSequence __pyx_unpickle_SeedSequence",
}
PLAIN: frozenset[Name] = frozenset(
    (module, name) for module, names in _PLAIN.items() for name in names.split()
)
# Of the standard library, what a model names itself counts only where it is harmless.
_HARMLESS = frozenset({"math", "cmath", "statistics", "string", "enum", *_PLAIN} - {"builtins"})
_HARMLESS_NAMES = frozenset(
    {
        ("copy", "deepcopy"),
        ("numpy", "array"),
        ("numpy", "ones"),
        ("operator", "itemgetter"),
        ("re", "_compile"),
    }
)
_UNSAFE_PARTS = frozenset({"datasets", "stream", "checks", "evaluate", "compat"})


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a pickle may do, beside naming classes of River and making plain values.

    Parameters
    ----------
    names
        Functions and classes that it may name.
    modules
        Every class that is defined in one of these, too.
    calls
        What it may call, with any arguments.
    makes
        Classes that it may make by a `__new__` of their own, with any arguments.
    methods
        Bound methods that it may hold: module and name of the class, name of the method.
    """

    names: frozenset[Name] = frozenset()
    modules: frozenset[str] = frozenset()
    calls: frozenset[Name] = frozenset()
    makes: frozenset[Name] = frozenset()
    methods: frozenset[tuple[str, str, str]] = frozenset()

    @classmethod
    def of(cls, model: Any) -> Allowed:
        """Return what the pickles of a model may do: what its own does, and name classes beside it.

        Raises
        ------
        Exception
            The model cannot be pickled.
        """
        file = io.BytesIO()
        noting = _Noting(file)
        noting.dump(model)
        listing = _Listing(io.BytesIO(file.getvalue()))
        listing.load()
        names = frozenset(name for name in listing.names if _may_be_added(*name))
        modules = frozenset(module for module, _ in names if _is_own(module))
        return cls(
            names=names,
            modules=modules,
            calls=frozenset(name for name in names & noting.calls if not _is_borrowed(name[0])),
            makes=frozenset(name for name in names & noting.makes if name[0] in modules),
            methods=frozenset(noting.methods),
        )

    def has_own(self, kind: type) -> bool:
        """Tell whether a class is neither Python's nor River's, but of whoever made the model."""
        module, name = kind.__module__, kind.__qualname__
        return _is_own(module) and (module in self.modules or (module, name) in self.names)


def dumps(value: Any) -> bytes:
    """Return a pickle that `loads` can read, arrays in one piece."""
    file = io.BytesIO()
    pickler = pickle.Pickler(file, protocol=pickle.HIGHEST_PROTOCOL)
    pickler.dispatch_table = copyreg.dispatch_table | {np.ndarray: _in_one_piece}
    pickler.dump(value)
    return file.getvalue()


def _in_one_piece(array: npt.NDArray[Any]) -> Any:
    whole = array if array.flags.forc else np.ascontiguousarray(array)
    return whole.__reduce_ex__(pickle.HIGHEST_PROTOCOL)


class _Noting(pickle.Pickler):
    """Writes a pickle of our own, and notes what reading it calls."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file, protocol=pickle.HIGHEST_PROTOCOL)
        self.calls: set[Name] = set()
        self.makes: set[Name] = set()
        self.methods: set[tuple[str, str, str]] = set()

    def reducer_override(self, value: Any) -> Any:
        """Return how a value is pickled, as it would be without this."""
        if isinstance(value, type | types.FunctionType):
            return NotImplemented
        if isinstance(value, np.ndarray):
            return _in_one_piece(value)
        special = copyreg.dispatch_table.get(type(value))
        reduced = special(value) if special else value.__reduce_ex__(pickle.HIGHEST_PROTOCOL)
        if isinstance(reduced, tuple):
            self._note(*reduced[:2])
        return reduced

    def _note(self, function: Any, given: tuple[Any, ...]) -> None:
        if function is getattr:
            kind = given[0] if isinstance(given[0], type) else type(given[0])
            self.methods.add((kind.__module__, kind.__qualname__, given[1]))
        elif function.__module__ == "copyreg" and isinstance(given[0], type):
            self.makes.add((given[0].__module__, given[0].__qualname__))
        else:
            self.calls.add((function.__module__, function.__qualname__))


class _Listing(pickle.Unpickler):
    """Reads a pickle of our own, and notes what it names."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.names: set[Name] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.names.add((module, name))
        return super().find_class(module, name)


def is_river(module: str) -> bool:
    """Tell whether a module is of River, and none of those that open files or run others."""
    top, *parts = module.split(".")
    return top == "river" and not _UNSAFE_PARTS.intersection(parts)


def _is_borrowed(module: str) -> bool:
    """Tell whether a module is of a library that brings much more than models."""
    return module.partition(".")[0] in {"numpy", "scipy", "sklearn", *sys.stdlib_module_names}


def _is_own(module: str) -> bool:
    """Tell whether a module is of whoever made the model."""
    return module.partition(".")[0] != "river" and not _is_borrowed(module)


def _may_be_added(module: str, name: str) -> bool:
    top = module.partition(".")[0]
    if (module, name) in _HARMLESS_NAMES:
        return True
    if top == "numpy":
        return module == "numpy" and isinstance(getattr(np, name, None), np.ufunc)
    return top not in sys.stdlib_module_names or module in _HARMLESS
