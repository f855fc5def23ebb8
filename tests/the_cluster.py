"""A Ray cluster of two nodes on this machine, deployed to as operators do it: by `serve deploy`.

As a program it holds the nodes, and does what each line that it reads says. `running` starts it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import yaml
from the_service import bearer, unused_port

from online_learner.cli.network import family
from serve_app.local import environment
from serve_app.local.guardian import MARK, sweep

ROOT = Path(__file__).parent.parent
FAST = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
}
LEARNING = "learning"  # what a node has that learners and gatekeepers run on
EVERYTHING = 4.0


class Cluster:
    """Two nodes that share no folder: secrets come by environment, and the store is on TCP."""

    def __init__(self, home: Path, store_url: str, scratch: Path) -> None:
        self.key, self.secret = f"ol_{secrets.token_hex(32)}", f"1:{secrets.token_hex(32)}"
        self.store_url = store_url
        self.data_dir = home / "nowhere"  # given to every node, and there on none
        self.port = unused_port()
        self._home = home
        dashboard = unused_port()
        self._address = f"http://127.0.0.1:{dashboard}"
        first = environment._free_range(40)
        (home / "token").write_text(secrets.token_hex(32))
        self._environment = (
            os.environ
            | FAST
            | {
                MARK: scratch.name,
                "RAY_TMPDIR": str(scratch),
                "PYTHONPATH": str(ROOT),
                "OL_SECRET": self.secret,
                "OL_API_KEY": self.key,
                "OL_DATA_DIR": str(self.data_dir),
                "REDIS_URL": store_url,
                "RAY_AUTH_MODE": "token",
                "RAY_AUTH_TOKEN_PATH": str(home / "token"),
                "RAY_USAGE_STATS_ENABLED": "0",
                "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "5",  # of 30
                "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{scratch}/h/haproxy.cfg",
                "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{scratch}/h/admin.sock",
                "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{scratch}/h/metrics.sock",
                "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": f"{scratch}/h",
                "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{scratch}/h/server-state",
                "RAY_SERVE_HAPROXY_STATS_PORT": str(unused_port()),
                "RAY_SERVE_HAPROXY_METRICS_PORT": str(unused_port()),
                "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(first),
                "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(first + 39),
                **_node_health(),
            }
        )
        with (home / "ray.log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(dashboard)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._environment,
                cwd=ROOT,
            )
        self.nodes: dict[str, str] = {}
        self._models: set[str] = set()

    def wait(self) -> None:
        """Wait until both nodes run; `nodes` are their ids then."""
        self.nodes = self._reply()

    def ask(self, command: str) -> Any:
        """Have the program do something; returns what it says."""
        assert self._process.stdin is not None
        print(command, file=self._process.stdin, flush=True)
        return self._reply()

    def _reply(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise AssertionError((self._home / "ray.log").read_text())

    def where(self) -> dict[str, list[tuple[str, int]]]:
        """Return on which node each replica runs, and as which process, by deployment."""
        found: dict[str, list[tuple[str, int]]] = self.ask("where")
        return {name: [(node, pid) for node, pid in places] for name, places in found.items()}

    def deploy(self, document: dict[str, Any]) -> None:
        """Do `serve deploy`, with the document of a `serve.yaml`; models no longer in it go."""
        file = self._home / "serve.yaml"
        file.write_text(yaml.safe_dump(document))
        self.run("serve", "deploy", "-a", self._address, str(file))
        given = (application["args"] for application in document["applications"])
        models = {args["model"] for args in given if "model" in args}
        for gone in self._models - models:
            self.run("online-learner", "config", "remove", gone)
        self._models = models

    def run(self, program: str, *arguments: str) -> None:
        """Run one of the installed programs, as an operator of this cluster does."""
        subprocess.run(
            [str(Path(sys.executable).with_name(program)), *arguments],
            env=self._environment,
            check=True,
            capture_output=True,
            timeout=60,
            cwd=self._home,
        )

    def applications(self) -> dict[str, str]:
        """Return the state of each application."""
        found: dict[str, str] = self.ask("applications")
        return found

    def client(self) -> httpx2.AsyncClient:
        """Return a client with the key."""
        url = f"http://127.0.0.1:{self.port}"
        return httpx2.AsyncClient(base_url=url, headers=bearer(self.key), timeout=15.0)

    def stop(self) -> None:
        """Stop the program."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()


def document(port: int) -> dict[str, Any]:
    """Return `serve_app/serve.yaml`, on another port."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "serve_app" / "serve.yaml").read_text())
    found["http_options"]["port"] = port
    return found


def _node_health() -> dict[str, str]:
    """Return what `cluster.yaml` sets so that a dead node is missed soon."""
    text = (ROOT / "cluster.yaml").read_text()
    return dict(word.split("=") for word in text.split() if word.startswith("RAY_health_check"))


@contextlib.contextmanager
def running(home: Path, store_url: str) -> Iterator[Cluster]:
    """Run a cluster, and leave nothing of it."""
    scratch = Path(tempfile.mkdtemp(prefix="", dir="/tmp"))  # sockets need short paths
    try:
        (scratch / "ray").mkdir()
        cluster = Cluster(home, store_url, scratch)
        try:
            cluster.wait()
            yield cluster
        finally:
            cluster.stop()
    finally:
        sweep(scratch.name, scratch)
        shutil.rmtree(scratch, ignore_errors=True)


# --- the program ------------------------------------------------------------------------------


def main(dashboard: str) -> None:
    """Start the nodes, and do what is asked, until there is nobody to ask."""
    import ray
    from ray.cluster_utils import Cluster as Nodes
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    resources = {"num_cpus": EVERYTHING, "resources": {LEARNING: 2}}
    nodes = Nodes(
        initialize_head=True,
        head_node_args={
            **resources,
            "include_dashboard": True,
            "dashboard_host": "127.0.0.1",
            "dashboard_port": int(dashboard),
        },
    )
    ray.init(address=nodes.address, namespace="serve", log_to_driver=False)
    other = nodes.add_node(**resources)
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    tenant = (
        ray.remote(Tenant)
        .options(num_cpus=0, resources={LEARNING: 2}, scheduling_strategy=here)
        .remote()
    )
    ray.get(tenant.stay.remote())
    _say({"head": nodes.head_node.node_id, "other": other.node_id})
    for line in sys.stdin:
        command = line.strip()
        if command == "make room":
            ray.kill(tenant)
            _say({})
        elif command == "cut the power":
            power_off(other)
            nodes.remove_node(other, allow_graceful=False)
            _say({})
        elif command == "where":
            _say(_where())
        else:
            from ray import serve

            found = serve.status().applications
            _say({name: application.status for name, application in found.items()})


class Tenant:
    """Takes what a node has, as another team's work does."""

    def stay(self) -> None:
        """Do nothing."""


def power_off(node: Any) -> None:
    """End all of a node at once, its HAProxy too, as a power cut does."""
    [raylet] = [info.process.pid for info in node.all_processes["raylet"]]
    for pid in family(raylet):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def _where() -> dict[str, list[tuple[str, int]]]:
    from ray.util.state import list_actors

    found: dict[str, list[tuple[str, int]]] = {}
    for actor in list_actors(filters=[("state", "=", "ALIVE")], limit=1000):
        kind, _, name = actor.class_name.rpartition(":")
        if kind.startswith("ServeReplica"):
            found.setdefault(name, []).append((actor.node_id, actor.pid))
    return found


def _say(document: Any) -> None:
    sys.stdout.write(json.dumps(document) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
