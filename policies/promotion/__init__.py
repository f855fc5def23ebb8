"""When new weights may answer. Chosen in the configuration by import path, with its arguments.

    promotion: {policy: policies.promotion:Leash, alpha: 0.01}

A policy says which roles to compare (`duels`), when the learner keeps a snapshot (`snapshot_due`),
and, after every settled audit, what should move (`decide`).
"""

from policies.promotion.leash import Leash
from policies.promotion.plain import Always, Manual
from policies.promotion.sequential import Sequential

__all__ = ["Always", "Leash", "Manual", "Sequential"]
