"""How fresh the served weights are, on the whole running system, policy `Always`.

Two clocks are read: from posting feedback until an answer comes from weights that have learned it,
and from the moment at which a script moves the alias until the last of two replicas answers by it.
"""

from __future__ import annotations
