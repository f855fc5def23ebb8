"""Answers that wait for a label, in two lanes, and who is labelling them just now.

- `audit`: what a coin drew to be evidence, in random order (`audits`).
- `ask`: what active learning asks about, most valuable first (`asked`), and among them planted
  questions (`gold`), which nobody can tell from the others.

A lease keeps an item from everybody else until it runs out; the store has them, so that they
outlive whoever gave them (`leases`). What was answered is given to nobody, whatever it was answered
by, but flags and implicit signals; nor is what has expired, and a holder does not get again what
they have skipped. A question that weights asked which have been rolled back since stays: its label
teaches the weights that answer now as well as any other.
"""

from online_learner.queue.gold import Planted, plant
from online_learner.queue.items import ASK, AUDIT, LANES, Lane
from online_learner.queue.room import LEASE_S, MOST_LEASED, MOST_S, Queue

__all__ = [
    "ASK",
    "AUDIT",
    "LANES",
    "LEASE_S",
    "MOST_LEASED",
    "MOST_S",
    "Lane",
    "Planted",
    "Queue",
    "plant",
]
