"""The examples: each runs as it stands, and what it learns is better than what it starts from."""

from __future__ import annotations

import gzip
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml

from examples import prices, reranking, spam
from online_learner.learners.factory import make_learner
from online_learner.schema import Task
from online_learner.settings import Settings
from online_learner.stages import check_model

ROOT = Path(__file__).parent.parent


def test_spam_is_told_apart() -> None:
    """After a few hundred messages the learned weights answer, and beat the frequent label."""
    found = spam.main(n=400)
    assert found["accuracy"] > 0.95
    assert found["accuracy of the more frequent label"] < 0.8
    assert 0 < found["answers before the first evidence"] < 200


def test_spam_is_read_from_a_file(tmp_path: Path) -> None:
    """Lines of label, tab and text are taken in order, as many as are wanted."""
    rows = list(spam.made_up(5))
    file = tmp_path / "sms.tsv.gz"
    with gzip.open(file, "wt", encoding="utf-8") as lines:
        lines.writelines(f"{label}\t{text}\n" for text, label in rows)
    assert list(spam.from_file(file, 3)) == rows[:3]


def test_rents_are_estimated() -> None:
    """The estimates are far nearer than the mean, and near to the noise of the rents."""
    found = prices.main(n=300)
    assert found["error of the model"] < 0.2 * found["error of the mean so far"]
    assert found["error of the model"] < 0.5 * found["first error"]


def test_answers_are_put_in_order() -> None:
    """The answer that people want comes first far more often than by chance."""
    found = reranking.main(n=300)
    assert found["best answer first"] > 0.7
    assert found["best answer first, by chance"] < 0.45


@pytest.mark.parametrize(
    "config", [spam.CONFIG, prices.CONFIG, reranking.CONFIG], ids=["spam", "prices", "reranking"]
)
def test_the_configuration_is_all_there_is(config: str, tmp_path: Path) -> None:
    """The configuration that an example shows is one that `up` takes as it stands."""
    file = tmp_path / "loop.yaml"
    file.write_text(config)
    [spec] = Settings.load(file).models.values()
    assert not make_learner(spec).fitted
    assert yaml.safe_load(config).keys() == {"models"}


def test_an_example_is_a_command() -> None:
    """Run as a module, an example prints what it found."""
    command = [sys.executable, "-m", "examples.prices"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [line.rsplit(maxsplit=1)[0] for line in done.stdout.splitlines()] == [
        "error of the model",
        "error of the mean so far",
        "first error",
    ]


def test_the_commented_configuration_is_one() -> None:
    """Every key in `examples/loop.yaml` is known, and all that it names can be built."""
    settings = Settings.load(ROOT / "examples" / "loop.yaml")
    assert {spec.task for spec in settings.models.values()} == set(get_args(Task))
    for spec in settings.models.values():
        check_model(spec)
