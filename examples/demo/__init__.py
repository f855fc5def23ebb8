"""The main job: two real streams, a world that changes, late and noisy raters, one crash.

`streams` are the data, `crowd` the people, `replay` plays them against the running system over
HTTP, `accounting` reads the raw streams and adds up, `report` shows it.
"""

from examples.demo.main import run

__all__ = ["run"]
