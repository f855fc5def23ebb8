"""Pickles that do harm when they are read: each would run something, or reach what could."""

from __future__ import annotations

import functools
import operator
import os
import pickle
import struct
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from river import datasets, linear_model


class Call:
    """Pickles as a call of whatever can be named."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self._all = (function, arguments, state)

    def __reduce__(self) -> Any:
        return self._all


def _short(text: str) -> bytes:
    return b"\x8c" + struct.pack("B", len(text)) + text.encode()


def called(module: str, name: str, argument: str) -> bytes:
    """Return a pickle that calls a name, dots and all, with a text."""
    return b"\x80\x04" + _short(module) + _short(name) + b"\x93" + _short(argument) + b"\x85R."


# --- programs, instruction by instruction --------------------------------------------------------


def named(module: str, name: str) -> bytes:
    """Return the part of a pickle that names something."""
    return _short(module) + _short(name) + b"\x93"


def reduced(function: bytes, *arguments: bytes) -> bytes:
    """Return the part of a pickle that calls something."""
    return function + b"(" + b"".join(arguments) + b"tR"


def filled(*items: bytes) -> bytes:
    """Return the part of a pickle that makes a dict of keys and values."""
    return b"}(" + b"".join(items) + b"u"


def built(instance: bytes, state: bytes, *, slots: bool = False) -> bytes:
    """Return the part of a pickle that gives something a state: a dict, or one for `setattr`."""
    return instance + (b"N" + state + b"\x86" if slots else state) + b"b"


def escapes() -> dict[str, bytes]:
    """Return pickles that name nothing but River and plain values, and reach more by those.

    A class of classes makes any class; `type="__class__"` has a distance make one; `clone` calls
    what a class says. Classes, their methods and stand-ins of ours hold for the whole process.
    """
    model = named("river.linear_model.log_reg", "LogisticRegression")
    window = named("river.utils.rolling", "Rolling")
    distance = named("river.cluster.textclust", "TextClust.Distances.dist")
    getter, text = named("builtins", "getattr"), named("builtins", "str")
    partial = named("functools", "partial")
    made = window + b")\x81"
    body = (_short("K"), text + b"\x85", filled(_short("__module__"), _short("river.k")))
    parts = {
        "a class of classes": reduced(named("river.base.estimator", "EstimatorMeta"), *body),
        "a class changed": built(model, filled(_short("type"), text), slots=True),
        "a distance makes a class": reduced(distance, model, *body),
        "clone": reduced(named("river.base.base", "Base.clone"), model + b")\x81"),
        "a method of River": reduced(getter, model, _short("learn_one")),
        "defaults of a method": built(
            reduced(getter, model, _short("learn_one")),
            filled(_short("__defaults__"), b"K\x07\x85"),
            slots=True,
        ),
        "a stand-in changed": built(
            named("numpy", "dtype"), filled(_short("harm"), text), slots=True
        ),
        "a constructor of River": reduced(window, text, b"K\x02"),
        "in the place of a method": built(model + b")\x81", filled(_short("learn_one"), text)),
        "in the place of a copy": built(model + b")\x81", filled(_short("__deepcopy__"), text)),
        "a model is counted": reduced(
            named("collections", "Counter"), built(made, filled(_short("obj"), text))
        ),
        "a model is asked for its text": reduced(text, made),
        "a model is appended to": built(made, filled(_short("obj"), b"]")) + b"K\x01a",
        "a partial of a partial": reduced(partial, reduced(partial, text)),
    }
    return {name: b"\x80\x04" + part + b"." for name, part in parts.items()}


@functools.cache
def crashes() -> dict[str, bytes]:
    """Return pickles that would end the process: its stack, its memory, or a foreign one."""
    many = 200_000
    key = b"})" + b"\x85" * many + b"Ns"
    deques = named("collections", "deque") + b"\x94" + b"h\x00)R" * many + b"a" * (many - 1)
    defaults = named("collections", "defaultdict") + b"\x94" + b"h\x00)RK\x01" * many + b"Ns"
    slices = named("builtins", "slice") + b"\x94" + b"h\x00" * many + b"N" + b"\x85R" * many
    parts = {
        "a deep key": key,
        "deep deques": deques,
        "deep dicts of defaults": defaults + b"s" * (many - 1),
        "deep slices": slices,
        "a long nothing": b"\x96" + struct.pack("<Q", 1 << 60),
    }
    twisters: dict[str, Any] = {
        "a place behind the end": {"pos": 10**9},
        "a place before the start": {"pos": -5},
        "a short state": {"key": np.zeros(3, np.uint32)},
        "a state of bytes": {"key": bytes(624), "pos": 10**9, "more": 1},
    }
    twister = np.random.MT19937(1)
    function, arguments, _ = twister.__reduce__()
    made = {name: b"\x80\x05" + part + b"." for name, part in parts.items()}
    for name, change in twisters.items():
        state = {"bit_generator": "MT19937", "state": twister.state["state"] | change}
        call = Call(function, *arguments, state=(state, None))
        made[name] = pickle.dumps(({}, call), protocol=5)
    return made


def gadgets(mark: Path) -> dict[str, bytes]:
    """Return pickles that would leave a mark, or something like it."""
    touch, file = f"touch {mark}", str(mark)
    opened = f"open({file!r}, 'w')"
    objects = {
        "os.system": Call(os.system, touch),
        "os.mkdir": Call(os.mkdir, file),
        "popen": Call(subprocess.Popen, ["touch", file]),
        "check_output": Call(subprocess.check_output, ["touch", file]),
        "eval": Call(eval, opened),
        "exec": Call(exec, opened),
        "open": Call(open, file, "w"),
        "import": Call(__import__, "os"),
        "compile": Call(compile, opened, "x", "exec"),
        "getattr of a class": Call(getattr, linear_model.LogisticRegression, "__subclasses__"),
        "getattr of a function": Call(getattr, called, "__globals__"),
        "getattr of text": Call(getattr, "{0.__class__}", "format"),
        "attrgetter": Call(operator.attrgetter, "__globals__"),
        "methodcaller": Call(operator.methodcaller, "system", touch),
        "partial": functools.partial(os.system, touch),
        "partial of a partial": functools.partial(functools.partial(eval), opened),
        "map": Call(map, os.system, [touch]),
        "breakpoint": Call(breakpoint),
        "memmap": Call(np.memmap, file, "u1", "w+", 0, 8),
        "numpy load": Call(np.load, file),
        "a data set": datasets.Phishing,
        "a stream": Call(datasets.base.FileDataset, file),
        "pickle in a pickle": Call(pickle.loads, pickle.dumps(Call(os.mkdir, file))),
        "records": np.zeros(2, [("a", "f8")]),
        "objects": np.array([{}, []], object),
        "pointers": Call(np.frombuffer, bytes(8), "O"),
        "forged kind": Call(np.dtype, "O8", 0, 1, state=(3, "|", None, None, None, -1, -1, 0)),
        "forged records": Call(np.dtype, "V8", 0, 1, state=(3, "|", None, ("a",), {}, 8, 1, 0)),
        "module": Call(__import__, "antigravity"),
        "class of a type": Call(type, "X", (), {}),
        "getattr of a stranger": Call(getattr, Call, "__reduce__"),
    }
    river = "river.compose.pipeline"
    raw = {
        "alias": called(river, "typing.sys.exit", "0"),
        "alias of os": called("river.utils.math", "sys.modules", "os"),
        "through a class": called("river.base", "Base.__subclasses__", ""),
        "through globals": called(river, "Pipeline.learn_one.__globals__", "x"),
        "builtins of a function": called(river, "Pipeline.learn_one.__builtins__.get", "eval"),
        "a function of River": called("river.stream.iter_csv", "iter_csv", file),
        "a data set by a dot": called("river.datasets.base", "FileDataset", file),
        "module that is not there": called("river.nonesuch", "Base", ""),
        "posix": called("posix", "system", touch),
        "python 2": b"\x80\x02c__builtin__\neval\n("
        b"X" + struct.pack("<I", len(opened)) + opened.encode() + b"tR.",
        "inst": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "obj": b"(cos\nsystem\nS'" + touch.encode() + b"'\no.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"\x80\x02Pmark\n.",
        "by protocol 0": b"cos\nsystem\n(S'" + touch.encode() + b"'\ntR.",
    }
    made = {}
    for name, value in objects.items():
        for protocol in (2, 5):
            made[f"{name} {protocol}"] = pickle.dumps(({}, value), protocol=protocol)
    return made | raw | escapes() | crashes()
