"""Where what we log goes, in a process of Serve's.

Serve writes the log of a replica itself. What others log reaches it by way of standard error, as
chatter, which a log of warnings leaves out; and on the fast profile it keeps a thousand lines back.
"""

from __future__ import annotations

import logging
from logging.handlers import MemoryHandler

OURS = ("online_learner", "serve_app", "policies")


def join_serve() -> None:
    """Let our warnings go where Serve's go, and at once."""
    serve = logging.getLogger("ray.serve")
    for name in OURS:
        logging.getLogger(name).parent = serve
    for handler in serve.handlers:
        if isinstance(handler, MemoryHandler):
            handler.flushLevel = logging.WARNING
