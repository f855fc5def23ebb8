"""Placeholder."""

from __future__ import annotations

from policies.lens import Lens


class Raters(Lens):
    """Nothing yet."""
