"""The README's first script, as it stands there, against the running service."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from benchmarks.hostile import site

README = (Path(__file__).parent.parent / "README.md").read_text()
FILES = dict(
    re.findall(r"^```\w+\n# (\w+\.(?:py|yaml))\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
)


def test_the_script_of_the_readme_sees_its_model_promoted(tmp_path: Path) -> None:
    """Twenty lines: ask, correct, follow the receipt, hear the verdict, and be answered better."""
    script = tmp_path / "quickstart.py"
    script.write_text(FILES["quickstart.py"])
    lines = [line for line in FILES["quickstart.py"].splitlines() if line.strip()]
    assert len(lines) <= 20
    with site.running(yaml.safe_load(FILES["loop.yaml"])["models"]) as found:
        run = subprocess.run(
            [sys.executable, str(script)],
            env=os.environ | {"OL_URL": found.url, "OL_API_KEY": found.key},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert run.returncode == 0, run.stderr
    learned, verdict, output = run.stdout.splitlines()
    assert learned == "fsynced learned"
    assert verdict.startswith("The champion follows the learner from now on: it beat version 0")
    assert output == "spam"
