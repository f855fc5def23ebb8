"""Pickles read by an allow-list: whoever writes one may choose among models, and run nothing.

A pickle is a program: it names functions, and calls them. Here it may name

- classes that are defined in River, and their methods (not data sets and streams: they open files);
- numbers, containers, random generators and arrays, by a list of their own;
- what the model as its factory made it names itself, and the classes defined beside that: the
  steps of a pipeline of your own, and the functions that it was given.

Aliases do not count: `river.x:typing.sys` leads to no class of River. Some names lead to something
safer than they say: bound methods and arrays are made here, because `getattr` reaches everything,
and a forged `numpy.dtype` turns any bytes into pointers.

Seals are verified before any of this: it is what is left once a key is stolen. Such a pickle can
still exhaust memory, or hold the wrong weights.
"""

from __future__ import annotations

import copyreg
import inspect
import io
import pickle
import random
import sys
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Name: TypeAlias = tuple[str, str]  # module, qualified name

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
_GETATTR = ("builtins", "getattr")
_UNSAFE_PARTS = frozenset({"datasets", "stream", "checks", "evaluate", "compat"})
_OF_TEXT = frozenset({"lower", "upper", "casefold", "strip", "split"})


_KINDS = "biufcSU"  # of arrays: numbers and text, no pointers


class NotAllowed(pickle.UnpicklingError):
    """A pickle names what no model of this kind holds."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """What a pickle may name, beside River and plain values.

    Parameters
    ----------
    names
        Functions and classes.
    modules
        Every class that is defined in one of these, too.
    """

    names: frozenset[Name] = frozenset()
    modules: frozenset[str] = frozenset()

    @classmethod
    def of(cls, model: Any) -> Allowed:
        """Return what the pickles of a model may name: what its own does, and classes beside it.

        Raises
        ------
        Exception
            The model cannot be pickled.
        """
        listing = _Listing(io.BytesIO(dumps(model)))
        listing.load()
        names = frozenset(name for name in listing.names if _may_be_added(*name))
        return cls(names, frozenset(module for module, _ in names if _is_own(module)))

    def defines(self, found: Any) -> bool:
        """Tell whether a class is one of River's, or of a module of these."""
        module = found.__module__
        return isinstance(module, str) and (_is_river(module) or module in self.modules)


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


def loads(blob: bytes, allowed: Allowed) -> Any:
    """Return the object in a pickle.

    Raises
    ------
    NotAllowed
        It names something else, or changes a class. Nothing that it names was called or imported.
    Exception
        It is no pickle, or a damaged one.
    """
    reader = _Reader(blob, allowed)
    try:
        return reader.load()
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust: no `Exception`, and no end either
            raise
        raise pickle.UnpicklingError("River cannot read a part of it") from None
    finally:
        reader.undo()


class _Listing(pickle.Unpickler):
    """Reads a pickle of our own, and notes what it names."""

    def __init__(self, file: io.BytesIO) -> None:
        super().__init__(file)
        self.names: set[Name] = set()

    def find_class(self, module: str, name: str) -> Any:
        self.names.add((module, name))
        return super().find_class(module, name)


class _Reader(pickle.Unpickler):
    def __init__(self, blob: bytes, allowed: Allowed) -> None:
        super().__init__(io.BytesIO(blob), fix_imports=False)  # Python 2 had other names for things
        self._allowed = allowed
        self._faces: dict[int, tuple[Any, dict[str, Any]]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == _GETATTR:
            return self._method
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        if (module, name) in PLAIN or (module, name) in self._allowed.names:
            found = super().find_class(module, name)
        else:
            found = self._defined(module, name)
        self._faces.setdefault(id(found), (found, dict(_face(found))))
        return found

    def _defined(self, module: str, name: str) -> Any:
        """Return a class of a module, or a method of one."""
        if not (_is_river(module) or module in self._allowed.modules):
            raise NotAllowed(f"it names {module}.{name}, which is no part of this model")
        found = super().find_class(module, name)
        method = isinstance(found, types.FunctionType) and "." in name and "__" not in name
        here = isinstance(found, type) or method
        if not here or (found.__module__, found.__qualname__) != (module, name):
            raise NotAllowed(f"it names {module}.{name}, which is no class defined there")
        return found

    def _method(self, owner: Any, name: str) -> Any:
        """Return a method: how Python pickles one is a call of `getattr`, which could do more."""
        if owner is str and name in _OF_TEXT:
            return getattr(owner, name)
        kind = owner if isinstance(owner, type) else type(owner)
        found = inspect.getattr_static(kind, name, None)
        known = kind is random.Random or self._allowed.defines(kind)
        if not known or name.startswith("__") or not isinstance(found, _METHODS):
            raise NotAllowed(
                f"it asks a {kind.__name__} for '{name}', which is no method of a model"
            )
        return found.__get__(None if owner is kind else owner, kind)

    def undo(self) -> None:
        """Give classes and functions back what they were before.

        Raises
        ------
        NotAllowed
            The pickle had set attributes of one.
        """
        changed = [thing for thing, before in self._faces.values() if _restore(thing, before)]
        if changed:
            raise NotAllowed(f"it changes {changed[0].__qualname__} itself")


# --- arrays -----------------------------------------------------------------------------------


class _Kind:
    """Stands for a `numpy.dtype` while a pickle is read; its state is not taken from there."""

    def __init__(self, code: str, *_: bool) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.kind not in _KINDS:
            raise NotAllowed("it holds an array of something else than numbers and text")

    def __setstate__(self, state: Sequence[Any]) -> None:
        _, order, *inner = state
        if any(part is not None for part in inner[:3]):
            raise NotAllowed("it holds an array of records")
        self.dtype = self.dtype.newbyteorder(order)


def _array(buffer: Any, kind: _Kind, shape: Any, order: Any, *_: Any) -> npt.NDArray[Any]:
    return np.frombuffer(buffer, dtype=kind.dtype).reshape(shape, order=order)


def _scalar(kind: _Kind, data: bytes) -> Any:
    return np.frombuffer(data, dtype=kind.dtype, count=1)[0]


_STAND_INS: dict[Name, Any] = {("numpy", "dtype"): _Kind}
for _core in ("numpy._core", "numpy.core"):  # by its name in numpy 2, and in numpy 1
    _STAND_INS[f"{_core}.numeric", "_frombuffer"] = _array
    _STAND_INS[f"{_core}.multiarray", "scalar"] = _scalar

# --- what classes and functions were before ---------------------------------------------------

_METHODS = (types.FunctionType, types.MethodDescriptorType, classmethod, staticmethod)
_LAZY = frozenset({"__annotations__", "__dict__", "__weakref__"})
_OF_FUNCTION = ("__defaults__", "__kwdefaults__", "__code__")


def _face(thing: Any) -> Iterator[tuple[str, Any]]:
    """Yield the attributes of a class or a function itself."""
    if isinstance(thing, type):
        yield from ((name, value) for name, value in vars(thing).items() if name not in _LAZY)
    elif isinstance(thing, types.FunctionType):
        yield from ((name, getattr(thing, name)) for name in _OF_FUNCTION)
        yield from vars(thing).items()


def _restore(thing: Any, before: dict[str, Any]) -> bool:
    """Give a class or a function its attributes back; tells whether any had changed."""
    now = dict(_face(thing))
    changed = [name for name in before.keys() | now.keys() if not _same(name, before, now)]
    for name in changed:
        if name in before:
            setattr(thing, name, before[name])
        else:
            delattr(thing, name)
    return bool(changed)


def _same(name: str, before: dict[str, Any], now: dict[str, Any]) -> bool:
    return name in before and name in now and before[name] is now[name]


def _is_river(module: str) -> bool:
    top, *parts = module.split(".")
    return top == "river" and not _UNSAFE_PARTS.intersection(parts)


def _is_own(module: str) -> bool:
    """Tell whether a module is of whoever made the model."""
    top = module.partition(".")[0]
    return top not in {"river", "numpy", "scipy", "sklearn", *sys.stdlib_module_names}


def _may_be_added(module: str, name: str) -> bool:
    top = module.partition(".")[0]
    if (module, name) in _HARMLESS_NAMES:
        return True
    if top == "numpy":
        return module == "numpy" and isinstance(getattr(np, name, None), np.ufunc)
    return top not in sys.stdlib_module_names or module in _HARMLESS
