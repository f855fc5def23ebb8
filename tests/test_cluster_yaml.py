"""The files of a cluster: Ray takes them, they agree with each other, and they hold no secret."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from online_learner.settings import Settings

ROOT = Path(__file__).parent.parent
HAPROXY = {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
}


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    """Return `cluster.yaml`, read."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    return found


@pytest.fixture(scope="module")
def kuberay() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the variables and the service of the KubeRay manifest."""
    text = (ROOT / "deploy" / "kuberay" / "rayservice.yaml").read_text()
    variables, service = yaml.safe_load_all(text)
    return variables, service


# --- cluster.yaml -----------------------------------------------------------------------------


def test_cluster_yaml_is_valid(cluster: dict[str, Any]) -> None:
    """Ray's own validator takes it: a head, and workers with and without GPUs."""
    prepared = prepare_config(cluster)
    validate_config(prepared)
    assert set(prepared["available_node_types"]) == {"head", "cpu", "gpu"}
    assert prepared["head_node_type"] == "head"
    assert prepared["available_node_types"]["cpu"]["min_workers"] == 1


@pytest.mark.parametrize(
    ("typo", "words"),
    [
        ({"head_node_typ": "head"}, "'head_node_typ' was unexpected"),
        ({"head_node_type": "haed"}, "must be one of"),
        ({"max_workers": 0}, "is smaller than"),
        ({"provider": {"type": "awz"}}, "Unsupported node provider: awz"),
        (
            {"available_node_types": {"head": {"node_config": {}, "resources": {}, "min": 1}}},
            "'min' was unexpected",
        ),
        ({"available_node_types": {"head": {"resources": {}}}}, "'node_config' is a required"),
    ],
)
def test_a_typo_in_cluster_yaml_is_refused(
    cluster: dict[str, Any], typo: dict[str, Any], words: str
) -> None:
    """Keys misspelt, at the top or in a node type, and references to nothing do not pass."""
    with pytest.raises(Exception, match=words):
        validate_config(prepare_config(cluster | typo))


def test_each_node_has_a_python_that_is_new_enough(cluster: dict[str, Any]) -> None:
    """No node gets the image that Ray chooses, whose Python is older than what we need."""
    for kind in cluster["available_node_types"].values():
        assert kind["node_config"]["ImageId"] in ("IMAGE", "GPU_IMAGE")
        [disk] = kind["node_config"]["BlockDeviceMappings"]
        assert disk["Ebs"]["VolumeSize"] >= 32
    assert "python3-venv" in " ".join(cluster["setup_commands"])


def test_who_deploys_has_the_token() -> None:
    """The command that deploys gets the secrets first: the dashboard asks for the token."""
    head, _, _ = (ROOT / "cluster.yaml").read_text().partition("cluster_name")
    [command] = re.findall(r"ray exec cluster.yaml '([^']*)'", head.replace("\n#", ""))
    assert ". ./cluster.env && RAY_AUTH_MODE=token" in command
    assert command.split()[-3:] == [".venv/bin/serve", "deploy", "serve_app/serve.yaml"]


@pytest.mark.parametrize("role", ["head", "worker"])
def test_each_node_knows_of_haproxy_before_ray_starts(cluster: dict[str, Any], role: str) -> None:
    """On every node the variables and the secrets are exported before `ray start`."""
    stop, start = cluster[f"{role}_start_ray_commands"]
    assert stop.endswith("ray stop")
    before, _, after = start.partition("ray start")
    assert "--head" in after or "--address=$RAY_HEAD_IP:6379" in after
    exported = dict(re.findall(r"(RAY_\w+)=(\S+)", before))
    assert HAPROXY.items() <= exported.items()
    assert exported["RAY_AUTH_MODE"] == "token"
    assert ". ./cluster.env &&" in before
    assert "cluster.env" in (ROOT / ".gitignore").read_text().split()


# --- KubeRay ----------------------------------------------------------------------------------

# Of the CRD `rayservices.ray.io`, v1: what may stand where. A key that it does not know is dropped
# by the API server without a word.
SERVICE = {
    "serviceUnhealthySecondThreshold",
    "deploymentUnhealthySecondThreshold",
    "excludeHeadPodFromServeSvc",
    "rayClusterConfig",
    "rayClusterDeletionDelaySeconds",
    "serveConfigV2",
    "serveService",
    "upgradeStrategy",
}
CLUSTER = {
    "authOptions",
    "autoscalerOptions",
    "enableInTreeAutoscaling",
    "gcsFaultToleranceOptions",
    "headGroupSpec",
    "rayVersion",
    "workerGroupSpecs",
}
AUTOSCALER = {"idleTimeoutSeconds", "resources", "upscalingMode", "version"}
GROUP = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
CONTAINER = {
    "name", "image", "workingDir", "envFrom", "ports", "resources", "readinessProbe"
}  # fmt: skip


def containers(service: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each group's container, with the name of the group."""
    config = service["spec"]["rayClusterConfig"]
    for group in [config["headGroupSpec"], *config["workerGroupSpecs"]]:
        [container] = group["template"]["spec"]["containers"]
        yield group.get("groupName", "head"), container


def test_the_manifest_has_only_keys_that_kuberay_knows(
    kuberay: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    """Each key of service, cluster, groups and containers is one of the CRD's."""
    _, service = kuberay
    assert (service["apiVersion"], service["kind"]) == ("ray.io/v1", "RayService")
    spec = service["spec"]
    config = spec["rayClusterConfig"]
    assert set(spec) <= SERVICE
    assert set(config) <= CLUSTER
    assert set(config["autoscalerOptions"]) <= AUTOSCALER
    assert config["authOptions"] == {"mode": "token"}
    assert set(config["headGroupSpec"]) == {"rayStartParams", "template"}
    for group in config["workerGroupSpecs"]:
        assert set(group) == GROUP
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
    for _, container in containers(service):
        assert set(container) <= CONTAINER
    groups = [config["headGroupSpec"], *config["workerGroupSpecs"]]
    params = [value for group in groups for value in group["rayStartParams"].values()]
    assert all(isinstance(value, str) for value in params)


def test_the_manifest_deploys_what_serve_yaml_does(
    kuberay: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    """`serveConfigV2` is `serve.yaml`, but that pods answer to more than themselves."""
    _, service = kuberay
    wanted = yaml.safe_load((ROOT / "serve_app" / "serve.yaml").read_text())
    found = yaml.safe_load(service["spec"]["serveConfigV2"])
    assert wanted["http_options"].pop("host") == "127.0.0.1"
    assert found["http_options"].pop("host") == "0.0.0.0"
    assert found == wanted


def test_every_pod_has_the_variables_and_the_secrets(
    kuberay: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    """Head and workers start with the fast ingress; what is secret is in a Secret, and not here."""
    variables, service = kuberay
    assert (HAPROXY | {"RAY_AUTH_MODE": "token"}).items() <= variables["data"].items()
    assert all(isinstance(value, str) for value in variables["data"].values())
    assert not {"REDIS_URL", "OL_SECRET", "OL_API_KEY", "OL_STORE"} & set(variables["data"])
    name = variables["metadata"]["name"]
    given = [{"configMapRef": {"name": name}}, {"secretRef": {"name": "online-learner"}}]
    for _, container in containers(service):
        assert container["envFrom"] == given
        assert {"name": "serve", "containerPort": 8000} in container["ports"]
    ready = dict(containers(service))["cpu"]["readinessProbe"]["httpGet"]
    assert ready == {"path": "/-/healthz", "port": "serve"}
    gpu = dict(containers(service))["gpu"]["resources"]["limits"]
    assert gpu["nvidia.com/gpu"] == "1"


def test_the_versions_agree(kuberay: tuple[dict[str, Any], dict[str, Any]]) -> None:
    """The manifest runs the Ray that the constraints pin."""
    _, service = kuberay
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
    assert service["spec"]["rayClusterConfig"]["rayVersion"] == pins["ray"]


@pytest.mark.parametrize("place", ["cluster.yaml", "deploy/kuberay/rayservice.yaml"])
def test_a_dead_node_is_missed_soon(place: str) -> None:
    """Both let the head take a node for dead after seconds, so that its learners move."""
    text = (ROOT / place).read_text()
    found = {k: int(v) for k, v in re.findall(r'RAY_health_check_(\w+?)(?:=|: ")(\d+)', text)}
    rounds_ms = max(found["period_ms"], found["timeout_ms"]) * found["failure_threshold"]
    assert rounds_ms + found["initial_delay_ms"] <= 10_000


def test_the_gateways_may_be_as_many_as_the_load_asks_for() -> None:
    """What the comment in `serve.yaml` offers is taken."""
    text = (ROOT / "serve_app" / "serve.yaml").read_text()
    [offer] = re.findall(r"gateways: 1 +# or ({.*}), by load", text)
    settings = Settings.parse({"models": {}, "gateways": yaml.safe_load(offer)})
    assert settings.model_dump()["gateways"] == yaml.safe_load(offer)
