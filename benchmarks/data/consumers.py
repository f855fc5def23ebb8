"""What libraries expect of a dataset's columns, and a small log that fills every format."""

from __future__ import annotations

import contextlib
import io
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from online_learner.archive.place import Place
from online_learner.dataset.compiling import compile_dataset
from online_learner.dataset.manifest import Manifest
from online_learner.dataset.query import Query
from online_learner.dataset.running import Here
from online_learner.dataset.versions import Versions
from online_learner.loop import Loop
from online_learner.settings import Settings

if TYPE_CHECKING:
    import datasets

MODELS: dict[str, dict[str, Any]] = {
    "labels": {
        "task": "classification",
        "labels": ["news", "sport"],
        "learner": "river:naive_bayes.GaussianNB",
    },
    "numbers": {"task": "regression", "learner": "river:linear_model.LinearRegression"},
    "pages": {"task": "ranking", "learner": "torch:ranking"},
    "texts": {"task": "generation"},
    "chats": {"task": "generation"},
}
# Which formats each model's feedback fills.
FILLED = {
    "labels": ("supervised", "tabular", "unpaired", "sft"),
    "numbers": ("supervised", "tabular"),
    "pages": ("preference", "reward", "unpaired", "sft"),
    "texts": ("preference", "reward", "unpaired", "sft"),
    "chats": ("preference", "reward", "unpaired", "sft"),
}
CASES = [(model, form) for model, forms in FILLED.items() for form in forms]

# What TRL's trainers take, by format: https://huggingface.co/docs/trl/dataset_formats. A column is
# text, or a list of messages; `label` is a truth value, and `margin` a number.
DIALOGUE = {
    "preference": ("prompt", "chosen", "rejected"),
    "unpaired": ("prompt", "completion"),
    "reward": ("chosen", "rejected"),
    "sft": ("prompt", "completion"),
}
PLAIN = {"unpaired": {"label": "bool"}, "reward": {"margin": "float64"}}


def misfits(features: datasets.Features, form: str) -> list[str]:
    """Return what a trainer of a format would not take, by the features that `datasets` sees."""
    from datasets import List, Value

    names = DIALOGUE.get(form, ())
    missing = [name for name in (*names, *PLAIN.get(form, ())) if name not in features]
    if missing:
        return [f"no column {name}" for name in missing]
    talk = List({"role": Value("string"), "content": Value("string")})
    found = [
        f"{name} is {features[name]}"
        for name in names
        if features[name] not in (Value("string"), talk)
    ]
    if len({str(features[name]) for name in names}) > 1:
        found.append("some columns are texts, and others are messages")
    for name, dtype in PLAIN.get(form, {}).items():
        if features[name] != Value(dtype):
            found.append(f"{name} is {features[name]}")
    return found


async def talk(loop: Loop, answers: int = 60, *, seed: int = 0) -> None:
    """Answer, and have people say of it all that the formats rest on."""
    draw = random.Random(seed)
    for n in range(answers):
        user = {"user_id": f"u{n % 7}"}
        await _labels(loop, draw, n, user)
        value = draw.uniform(0, 9)
        answer = await loop.predict("numbers", {"size": value, "new": n % 2 == 0}, **user)
        await loop.feedback(answer["prediction_id"], "correction", 2 * value)
        await _pages(loop, draw, n, user)
        await _texts(loop, "texts", n, {"prompt": f"Say {n} in words"} | user)
        messages = [{"role": "user", "content": f"Say {n}"}]
        await _texts(loop, "chats", n, {"messages": messages} | user)


async def _labels(loop: Loop, draw: random.Random, n: int, user: dict[str, str]) -> None:
    # Values of one name need not be of one type.
    words: float | str = "many" if n % 5 == 0 else draw.gauss(0, 1)
    answer = await loop.predict("labels", {"words": words, "title": f"Grüße, {n}"}, **user)
    if n % 3 == 0:
        await loop.feedback(answer["prediction_id"], "thumbs", n % 2 == 0)
    else:
        await loop.feedback(answer["prediction_id"], "correction", ("news", "sport")[n % 2])


async def _pages(loop: Loop, draw: random.Random, n: int, user: dict[str, str]) -> None:
    options = [{"id": f"p{k}", "features": {"text": f"page {k} on {n}"}} for k in range(4)]
    answer = await loop.predict("pages", {"query": f"what of {n}"}, options=options, **user)
    name = answer["prediction_id"]
    if n % 4 == 0:
        await loop.feedback(name, "preference", chosen="p1", rejected="p2")
    elif n % 4 == 1:
        await loop.feedback(name, "selection", f"p{draw.randrange(4)}")
    elif n % 4 == 2:
        await loop.feedback(name, "correction", "p3")
    else:
        await loop.feedback(name, "thumbs", n % 8 == 3)


async def _texts(loop: Loop, model: str, n: int, asked: dict[str, Any]) -> None:
    outputs = [{"id": "a", "text": f"it is {n}"}, {"id": "b", "text": f"{n}, I think"}]
    answer = await loop.log(model, outputs=outputs, **asked)
    name = answer["prediction_id"]
    if n % 3 == 0:
        await loop.feedback(name, "preference", chosen="b", rejected="a")
    elif n % 3 == 1:
        await loop.feedback(name, "thumbs", n % 2 == 0)
    else:
        await loop.feedback(name, "correction", f"exactly {n}")


async def compile_one(
    loop: Loop, model: str, form: str, file_format: str, root: Path, **more: Any
) -> tuple[Manifest, Versions]:
    """Compile a version of one model in this process."""
    stages = loop.stages(model)
    query = Query.model_validate(
        {"model": model, "format": form, "file_format": file_format, "validation": 0.2} | more
    )
    place = Place.open(root / model)
    manifest = await compile_dataset(
        stages.log, stages.spec, stages.keyring, query, datasets=place, runner=Here(), now=1.0
    )
    return manifest, Versions(place)


def settings(store: str, data_dir: Path) -> Settings:
    """Return the settings of all models."""
    models = {name: {"archive": None} | model for name, model in MODELS.items()}
    return Settings.parse({"store": store, "data_dir": data_dir, "models": models})


@contextlib.contextmanager
def offline(cache: Path) -> Iterator[None]:
    """Let `datasets` ask nobody, keep its cache in a folder, and be quiet."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(cache), "HF_HOME": str(cache)}
    import datasets

    datasets.config.HF_DATASETS_CACHE = cache
    datasets.disable_progress_bars()
    with contextlib.redirect_stderr(io.StringIO()):
        yield
