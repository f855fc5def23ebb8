"""Placeholder."""

from __future__ import annotations

from policies.lens import Lens


class Agreement(Lens):
    """Nothing yet."""
