"""Pickles read by an allow-list: whoever writes one may choose among models, and run nothing.

A pickle is a program: it names things, calls them, and gives them states. Here it may

- name classes that are defined in River (not data sets and streams: they open files), plain
  classes by a list of their own, what the model as its factory made it names itself, and the
  classes defined beside that: the steps of a pipeline of your own, and the functions it was given;
- call the constructors of plain values, each with harmless arguments, and what that model's own
  pickle calls. Nothing else of River: its instances are made by `object.__new__`;
- give a state to instances that it has made itself. Never to a class or a function, and no
  attribute may take the place of a method of River.

Aliases do not count: `river.x:typing.sys` leads to no class of River. `getattr` stands for bound
methods that the model holds from the beginning. Classes of classes cannot be named.

Seals are verified before any of this: it is what is left once a key is stolen. Such a pickle can
still exhaust memory, or hold the wrong weights.
"""

from __future__ import annotations

import enum
import functools
import importlib
import inspect
import pickle
import sys
import types
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable
from typing import Any

from online_learner.learners.constructors import CALLS, STAND_INS, STATES, Name
from online_learner.learners.listing import PLAIN, Allowed, dumps, is_river
from online_learner.learners.opcodes import Machine, NotAllowed, are_atoms

__all__ = ["Allowed", "NotAllowed", "dumps", "loads"]

_GETATTR = ("builtins", "getattr")
_OF_TEXT = frozenset({"lower", "upper", "casefold", "strip", "split"})
# Functions that River's models begin to hold only as they learn.
_LEARNED: frozenset[Name] = frozenset(
    ("river.tree.splitter.ebst_splitter", f"EBSTNode._update_estimator_{arity}")
    for arity in ("univariate", "multivariate")
)
_RUST = "river._river_rust."
_METHODS = (types.FunctionType, types.MethodDescriptorType, classmethod, staticmethod)
_SHARED = (bytearray, deque, dict, list, set, types.ModuleType)
# Whose `__new__` a class may have: Python's own, which runs nothing.
_ROOTS = (OrderedDict, defaultdict, deque, dict, float, int, list, set, str)


def loads(blob: bytes, allowed: Allowed) -> Any:
    """Return the object in a pickle.

    Raises
    ------
    NotAllowed
        It does something else. Nothing of that was called, changed or imported.
    Exception
        It is no pickle, or a damaged one.
    """
    try:
        return _Reader(blob, allowed).run()
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust: no `Exception`, and no end either
            raise
        raise pickle.UnpicklingError("River cannot read a part of it") from None


class _Reader(Machine):
    def __init__(self, blob: bytes, allowed: Allowed) -> None:
        super().__init__(blob)
        self._allowed = allowed
        # What may be called, by its id, and with which arguments.
        self._checks: dict[int, tuple[Any, Callable[[Any], bool]]] = {}
        self._instances: dict[int, Any] = {}  # that were made here, by their ids
        self._getattr = self._method  # one object for all: each look at a method makes a new one

    def trusts(self, kind: type) -> bool:
        return self._allowed.has_own(kind)

    # --- names --------------------------------------------------------------------------------

    def find(self, module: str, name: str) -> Any:
        key, check = (module, name), CALLS.get((module, name))
        if key == _GETATTR:
            found, check = self._getattr, _is_question
        elif key in STAND_INS:
            found, check = STAND_INS[key]
        elif key in PLAIN or key in self._allowed.names:
            found = _looked_up(module, name)
        else:
            found = self._defined(module, name)
        if check is None and key in self._allowed.calls:
            check = _anything
        if check is not None:
            self._checks[id(found)] = (found, check)
        return found

    def _defined(self, module: str, name: str) -> Any:
        """Return a class of a module."""
        if not (is_river(module) or module in self._allowed.modules):
            raise NotAllowed(f"it names {module}.{name}, which is no part of this model")
        found = _looked_up(module, name)
        here = _is_class(found) or (module, name) in _LEARNED
        if not here or (found.__module__, found.__qualname__) != (module, name):
            raise NotAllowed(f"it names {module}.{name}, which is no class defined there")
        return found

    def _method(self, owner: Any, name: str) -> Any:
        """Return a method: how Python pickles one is a call of `getattr`, which could do more."""
        if owner is str and name in _OF_TEXT:
            return getattr(owner, name)
        kind = owner if _is_class(owner) else type(owner)
        found = inspect.getattr_static(kind, name, None)
        own = self._allowed.has_own(kind) and not name.startswith("__")
        known = own or (kind.__module__, kind.__qualname__, name) in self._allowed.methods
        if not known or not isinstance(found, _METHODS):
            raise NotAllowed(
                f"it asks a {kind.__name__} for '{name}', which is no method that this model holds"
            )
        return found.__get__(None if owner is kind else owner, kind)

    # --- calls --------------------------------------------------------------------------------

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        if _is_class(function) and issubclass(function, enum.Enum):
            if len(arguments) == 1 and are_atoms(arguments):
                return function(*arguments)  # a member, which all share
            raise NotAllowed(f"it makes a member of {_told(function)}")
        _, check = self._checks.get(id(function), (None, _nothing))
        if not check(arguments):
            raise NotAllowed(f"it calls {_told(function)} as no state of this model does")
        return self._kept(function(*arguments))

    def make(self, kind: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if not _is_class(kind):
            raise NotAllowed(f"it makes an instance of {_told(kind)}, which is no class")
        if (kind.__module__, kind.__qualname__) in self._allowed.makes:
            return self._kept(kind.__new__(kind, *arguments, **options))
        root = next(base for base in kind.__mro__ if "__new__" in vars(base))
        if root is object:
            harmless = not arguments
        elif root in _ROOTS:
            harmless = len(arguments) <= 1 and are_atoms(arguments)
        elif root is tuple:
            harmless = [type(part) for part in arguments] == [tuple]
        elif root.__bases__ == (tuple,):  # a named tuple
            harmless = len(arguments) == len(vars(root).get("_fields", ()))
            root, arguments = tuple, (arguments,)
        else:
            harmless = kind.__module__.startswith(_RUST) and are_atoms(arguments)
        if options or not harmless:
            raise NotAllowed(f"it makes a {kind.__name__} as no state of this model does")
        return self._kept(root.__new__(kind, *arguments))

    def _kept(self, made: Any) -> Any:
        self._instances[id(made)] = made
        return made

    # --- states -------------------------------------------------------------------------------

    def build(self, instance: Any, state: Any) -> None:
        kind = type(instance)
        own = self._allowed.has_own(kind)
        known = own or kind in STATES or is_river(kind.__module__)
        if id(instance) not in self._instances or not known:
            raise NotAllowed(f"it changes {_told(instance)} itself")
        restorer = next((base for base in kind.__mro__ if "__setstate__" in vars(base)), None)
        if kind in STATES:
            harmless = STATES[kind](state)
        elif restorer is None:
            _set_attributes(instance, state, own=own)
            return
        elif restorer.__module__.startswith(_RUST):
            harmless = type(state) is bytes
        else:
            harmless = own or (is_river(restorer.__module__) and _are_attributes(kind, state))
        if not harmless:
            raise NotAllowed(f"it gives a {kind.__name__} a state that is none")
        kind.__setstate__(instance, state)


def _set_attributes(instance: Any, state: Any, *, own: bool) -> None:
    """Set attributes as Python does for a class that does not do it itself."""
    kind, slots = type(instance), None
    if type(state) is tuple and len(state) == 2:
        state, slots = state
    if state is not None:
        if not (own and type(state) is dict) and not _are_attributes(kind, state):
            raise NotAllowed(f"it gives a {kind.__name__} a state that is none")
        attributes = object.__getattribute__(instance, "__dict__")
        for name, value in state.items():
            attributes[sys.intern(name)] = value
    if slots is not None and type(slots) is not dict:
        raise NotAllowed(f"it gives a {kind.__name__} a state that is none")
    for name, value in (slots or {}).items():
        slot = inspect.getattr_static(kind, name)
        if not isinstance(slot, types.MemberDescriptorType):
            raise NotAllowed(f"it sets {name} of a {kind.__name__}, which has no such slot")
        slot.__set__(instance, value)


def _are_attributes(kind: type, state: Any) -> bool:
    """Tell whether these are attributes, none of which takes the place of a method."""
    if type(state) is not dict or not {str}.issuperset(map(type, state)):
        return False
    special = any(name.startswith("__") for name in state)  # `copy` would look for `__deepcopy__`
    return not special and _methods(kind).isdisjoint(state)


@functools.cache
def _methods(kind: type) -> frozenset[str]:
    return frozenset(
        name
        for base in kind.__mro__
        for name, value in vars(base).items()
        if callable(value) or isinstance(value, classmethod | staticmethod | property)
    )


# --- names --------------------------------------------------------------------------------------


def _looked_up(module: str, name: str) -> Any:
    """Return a function or class by its name, through the classes that it is defined in."""
    found: Any = importlib.import_module(module)
    for depth, part in enumerate(name.split(".")):
        if depth and not _is_class(found):
            raise NotAllowed(f"it names {module}.{name}, which is defined in no class")
        found = getattr(found, part)
    if isinstance(found, _SHARED) or (_is_class(found) and issubclass(found, type)):
        raise NotAllowed(f"it names {module}.{name}, which is no function, and no class of values")
    return found


def _is_class(value: Any) -> bool:
    return issubclass(type(value), type)


def _is_question(arguments: Any) -> bool:
    return len(arguments) == 2 and type(arguments[1]) is str


def _anything(_: Any) -> bool:
    return True


def _nothing(_: Any) -> bool:
    return False


def _told(value: Any) -> str:
    """Return the name of something, running nothing of it."""
    named = _is_class(value) or isinstance(value, _METHODS)
    return str(value.__qualname__) if named else f"a {type(value).__name__}"
