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
    return made | raw
