"""The machine that a pickle is a program for, without the instructions that reach too far.

It knows what Python's own pickler writes in protocols 4 and 5, and refuses the rest: persistent
ids, extensions, instances made by `INST` and `OBJ`, buffers from outside. It fills no containers
but Python's own, by their own methods, and hashes nothing that could run code or recurse without
end. What is named, called, made and given a state is up to a subclass.
"""

from __future__ import annotations

import enum
import pickle
import struct
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from typing import Any, NoReturn, TypeAlias, TypeVar
from uuid import UUID

import numpy as np

ATOMS = frozenset({bool, bytes, complex, float, int, str, type(None)})
_MORE_KEYS = ATOMS | {date, datetime, time, timedelta, timezone, Decimal, Fraction, UUID}
# CPython frees these recursively, and dies of many in each other.
_RECURSIVE = (defaultdict, deque)
_DEEPEST = 100
_PLACE = struct.Struct("<I")
_MOST_PARTS = 1000  # of one key; CPython hashes tuples recursively, and dies of a deep one

Step: TypeAlias = Callable[["Machine"], None]
StepT = TypeVar("StepT", bound=Step)
_STEPS: dict[int, Step] = {}


class NotAllowed(pickle.UnpicklingError):
    """A pickle does what no pickle of a model does."""


def are_atoms(values: Iterable[Any]) -> bool:
    """Tell whether all of these are text, numbers and the like."""
    return ATOMS.issuperset(map(type, values))


def _on(instruction: bytes) -> Callable[[StepT], StepT]:
    def register(step: StepT) -> StepT:
        _STEPS[instruction[0]] = step
        return step

    return register


class Machine:
    """Runs one pickle.

    Parameters
    ----------
    program
        The pickle.
    """

    def __init__(self, program: bytes) -> None:
        self.stack: list[Any] = []
        self._program = program
        self._at = 0
        self._below: list[list[Any]] = []  # the stacks before each mark
        self._memo: list[Any] = []
        self._depths: dict[int, int] = {}  # of containers that are freed recursively, by their ids
        self._held: set[int] = set()  # of those, by another one

    def run(self) -> Any:
        """Return the object that the pickle makes.

        Raises
        ------
        NotAllowed
            It does something else than that.
        Exception
            It is damaged.
        """
        program, steps = self._program, _STEPS
        while True:
            code = program[self._at]
            self._at += 1
            step = steps.get(code)
            if step is not None:
                step(self)
            elif code == pickle.STOP[0]:
                return self.stack.pop()
            else:
                raise pickle.UnpicklingError(f"it holds {code:#04x}, no instruction of ours")

    def find(self, module: str, name: str) -> Any:
        """Return what a name stands for."""
        raise NotImplementedError

    def call(self, function: Any, arguments: tuple[Any, ...]) -> Any:
        """Return what a function makes of its arguments."""
        raise NotImplementedError

    def make(self, kind: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Return a new instance of a class, not initialized."""
        raise NotImplementedError

    def build(self, instance: Any, state: Any) -> None:
        """Give an instance its state."""
        raise NotImplementedError

    def trusts(self, kind: type) -> bool:
        """Tell whether instances of a class may be hashed by code of their own."""
        raise NotImplementedError

    # --- what is read as it is ----------------------------------------------------------------

    def take(self, size: int) -> bytes:
        """Return the next bytes.

        Raises
        ------
        UnpicklingError
            There are fewer.
        """
        begin, end = self._at, self._at + size
        if not 0 <= size <= len(self._program) - begin:
            raise pickle.UnpicklingError("it is cut off")
        self._at = end
        return self._program[begin:end]

    def number(self, form: struct.Struct) -> Any:
        """Return the next number; raises `struct.error` where there is none."""
        (found,) = form.unpack_from(self._program, self._at)
        self._at += form.size
        return found

    @_on(pickle.BININT1)
    def _small(self) -> None:
        self.stack.append(self._program[self._at])
        self._at += 1

    @_on(pickle.LONG1)
    def _long(self) -> None:
        size = self._program[self._at]
        begin = self._at + 1
        self._at = end = begin + size
        self.stack.append(int.from_bytes(self._program[begin:end], "little", signed=True))

    @_on(pickle.BINGET)
    def _get_small(self) -> None:
        self.stack.append(self._memo[self._program[self._at]])
        self._at += 1

    @_on(pickle.LONG_BINGET)
    def _get(self) -> None:
        self.stack.append(self._memo[self.number(_PLACE)])

    @_on(pickle.MEMOIZE)
    def _memoize(self) -> None:
        self._memo.append(self.stack[-1])

    # --- containers ---------------------------------------------------------------------------

    @_on(pickle.MARK)
    def _mark(self) -> None:
        self._below.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        items, self.stack = self.stack, self._below.pop()
        return items

    @_on(pickle.POP)
    def _pop(self) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self._since_mark()

    @_on(pickle.POP_MARK)
    def _pop_mark(self) -> None:
        self._since_mark()

    @_on(pickle.TUPLE)
    def _tuple(self) -> None:
        items = self._since_mark()
        self.stack.append(tuple(items))

    @_on(pickle.APPEND)
    def _append(self) -> None:
        item = self.stack.pop()
        self._extend(self.stack[-1], [item])

    @_on(pickle.APPENDS)
    def _appends(self) -> None:
        items = self._since_mark()
        self._extend(self.stack[-1], items)

    def _extend(self, target: Any, items: list[Any]) -> None:
        kind = type(target)
        if issubclass(kind, list):
            list.extend(target, items)
        elif issubclass(kind, deque):
            self._check_depth(target, items)
            deque.extend(target, items)
        else:
            _refuse_filling(target)

    @_on(pickle.SETITEM)
    def _set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._fill(self.stack[-1], [key], [value])

    @_on(pickle.SETITEMS)
    def _set_items(self) -> None:
        items = self._since_mark()
        self._fill(self.stack[-1], items[::2], items[1::2])

    def _fill(self, target: Any, keys: list[Any], values: list[Any]) -> None:
        kind = type(target)
        if not issubclass(kind, dict):
            _refuse_filling(target)
        self._check_keys(keys)
        self._check_depth(target, values)
        put = OrderedDict.__setitem__ if issubclass(kind, OrderedDict) else dict.__setitem__
        for key, value in zip(keys, values, strict=True):
            put(target, key, value)

    @_on(pickle.ADDITEMS)
    def _add_items(self) -> None:
        items = self._since_mark()
        if not issubclass(type(self.stack[-1]), set):
            _refuse_filling(self.stack[-1])
        self._check_keys(items)
        set.update(self.stack[-1], items)

    @_on(pickle.FROZENSET)
    def _frozenset(self) -> None:
        items = self._since_mark()
        self._check_keys(items)
        self.stack.append(frozenset(items))

    def _check_depth(self, target: Any, items: list[Any]) -> None:
        """Note how deep it is. Python's pickler completes a container before another holds it."""
        if type(target) not in _RECURSIVE:
            return
        inner = [id(item) for item in items if type(item) in _RECURSIVE]
        self._held.update(inner)
        depth = max((self._depths.get(number, 0) + 1 for number in inner), default=0)
        self._depths[id(target)] = max(depth, self._depths.get(id(target), 0))
        if depth > _DEEPEST or id(target) in self._held:
            raise NotAllowed("it holds containers in each other without end")

    def _check_keys(self, keys: list[Any]) -> None:
        if not are_atoms(keys) and not all(map(self._is_key, keys)):
            raise NotAllowed("it holds a key that is neither text nor a number, nor a few of those")

    def _is_key(self, key: Any) -> bool:
        parts = [key]
        for count, part in enumerate(parts):  # which grows
            kind = type(part)
            if count > _MOST_PARTS:
                return False
            if kind is frozenset or _hash_of(kind) is tuple.__hash__:
                parts.extend(part if kind is frozenset else tuple.__iter__(part))
            elif kind not in _MORE_KEYS and not (_hashes_simply(kind) or self.trusts(kind)):
                return False
        return True

    # --- what a subclass decides --------------------------------------------------------------

    @_on(pickle.STACK_GLOBAL)
    def _named(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.stack.append(self.find(_exactly(str, module), _exactly(str, name)))

    @_on(pickle.REDUCE)
    def _called(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        self.stack.append(self.call(function, _exactly(tuple, arguments)))

    @_on(pickle.NEWOBJ)
    def _made(self) -> None:
        arguments, kind = self.stack.pop(), self.stack.pop()
        self.stack.append(self.make(kind, _exactly(tuple, arguments), {}))

    @_on(pickle.NEWOBJ_EX)
    def _made_with_options(self) -> None:
        options, arguments, kind = self.stack.pop(), self.stack.pop(), self.stack.pop()
        made = self.make(kind, _exactly(tuple, arguments), _exactly(dict, options))
        self.stack.append(made)

    @_on(pickle.BUILD)
    def _built(self) -> None:
        state = self.stack.pop()
        self.build(self.stack[-1], state)


def _exactly(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise pickle.UnpicklingError(
            f"a {type(value).__name__} is in the place of a {kind.__name__}"
        )
    return value


def _refuse_filling(target: Any) -> NoReturn:
    raise NotAllowed(f"it fills a {type(target).__name__}, which is no container of Python's own")


def _hashes_simply(kind: type) -> bool:
    by_itself = _hash_of(kind) in (object.__hash__, type.__hash__)
    return by_itself or issubclass(kind, (np.generic, enum.Enum))


def _hash_of(kind: type) -> Any:
    return kind.__hash__


# --- the other instructions: each puts something on the stack -------------------------------------


def _put(instruction: bytes, make: Callable[[], Any]) -> None:
    @_on(instruction)
    def step(machine: Machine) -> None:
        machine.stack.append(make())


def _put_number(instruction: bytes, code: str) -> None:
    form = struct.Struct(code)

    @_on(instruction)
    def step(machine: Machine) -> None:
        machine.stack.append(machine.number(form))


def _put_sized(instruction: bytes, code: str, read: Callable[[bytes], Any]) -> None:
    """Let an instruction read a length, and as many bytes."""
    form = struct.Struct(code)

    @_on(instruction)
    def step(machine: Machine) -> None:
        machine.stack.append(read(machine.take(machine.number(form))))


def _put_last(instruction: bytes, count: int) -> None:
    """Let an instruction make a tuple of the last items."""

    @_on(instruction)
    def step(machine: Machine) -> None:
        stack = machine.stack
        if len(stack) < count:
            raise pickle.UnpicklingError("there is nothing left to take")
        stack[-count:] = [tuple(stack[-count:])]


def _skip(instruction: bytes, size: int) -> None:
    @_on(instruction)
    def step(machine: Machine) -> None:
        machine.take(size)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


def _signed(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


_skip(pickle.PROTO, 1)
_skip(pickle.FRAME, 8)
_put(pickle.NONE, lambda: None)
_put(pickle.NEWTRUE, lambda: True)
_put(pickle.NEWFALSE, lambda: False)
_put(pickle.EMPTY_TUPLE, tuple)
_put(pickle.EMPTY_LIST, list)
_put(pickle.EMPTY_DICT, dict)
_put(pickle.EMPTY_SET, set)
_put_number(pickle.BININT, "<i")
_put_number(pickle.BININT2, "<H")
_put_number(pickle.BINFLOAT, ">d")
_put_sized(pickle.LONG4, "<i", _signed)
_put_sized(pickle.SHORT_BINUNICODE, "<B", _text)
_put_sized(pickle.BINUNICODE, "<I", _text)
_put_sized(pickle.BINUNICODE8, "<Q", _text)
_put_sized(pickle.SHORT_BINBYTES, "<B", bytes)
_put_sized(pickle.BINBYTES, "<I", bytes)
_put_sized(pickle.BINBYTES8, "<Q", bytes)
_put_sized(pickle.BYTEARRAY8, "<Q", bytearray)
_put_last(pickle.TUPLE1, 1)
_put_last(pickle.TUPLE2, 2)
_put_last(pickle.TUPLE3, 3)
