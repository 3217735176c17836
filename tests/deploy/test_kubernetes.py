"""The manifests of deploy/kubernetes are right, as far as that can be known without a cluster; and each check would notice if not."""

from __future__ import annotations

import re
import shutil

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.deploy import manifests
from tests.deploy.manifests import FOLDER, OVERLAYS, build, container_of, named, of_kind, pod_of
from tests.support import live
from tests.support.paths import SUNSPOTS


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("check", manifests.CHECKS, ids=lambda check: check.__name__)
def test_an_overlay_is_right(overlay, check):
    """Each check finds nothing wrong with what an overlay comes to."""
    check(build(FOLDER / "overlays" / overlay))


def server(objects):
    """Returns the container of the server."""
    return container_of(named(objects, "Deployment"))


def variable(objects, name):
    """Returns a variable of its environment."""
    (found,) = [item for item in server(objects)["env"] if item["name"] == name]
    return found


def metric(objects):
    """Returns the metric of ours that the autoscaler goes by."""
    return named(objects, "HorizontalPodAutoscaler")["spec"]["metrics"][0]["pods"]["metric"]


def relabel(objects, label, value):
    """Gives the pods of the server another label."""
    named(objects, "Deployment")["spec"]["template"]["metadata"]["labels"][f"app.kubernetes.io/{label}"] = value


def spread(objects):
    """Returns the first rule by which the pods are spread."""
    return pod_of(named(objects, "Deployment"))["topologySpreadConstraints"][0]


def context(objects):
    """Returns as whom the pods run."""
    return pod_of(named(objects, "Deployment"))["securityContext"]


def strategy(objects):
    """Returns how the Deployment is updated."""
    return named(objects, "Deployment")["spec"]["strategy"]["rollingUpdate"]


# What is done to the manifests, the one check that must find it, and a part of what it says.
BROKEN = [
    (lambda o: named(o, "Deployment")["spec"].update(replica=5), "every_field_is_known", "'replica' was unexpected"),
    (lambda o: server(o)["lifecycle"]["preStop"]["sleep"].update(second=7), "every_field_is_known", "'second' was"),
    (lambda o: server(o)["resources"].update(limit={}), "every_field_is_known", "'limit' was unexpected"),
    (
        lambda o: pod_of(named(o, "Deployment")).update(terminationGracePeriodSeconds="45"),
        "every_field_is_known",
        "'45'",
    ),
    (lambda o: named(o, "NetworkPolicy")["spec"].update(ingres=[]), "every_field_is_known", "'ingres' was unexpected"),
    (
        lambda o: named(o, "ServiceMonitor")["spec"]["endpoints"][0].update(scheme="x"),
        "every_field_is_known",
        "'scheme'",
    ),
    (lambda o: variable(o, "LSTMSERVE_MODELS").update(name="LSTMSERVE_MODEL"), "settings_are_ours", "no setting"),
    (lambda o: variable(o, "LSTMSERVE_DRAIN_SECONDS").update(value="30s"), "settings_are_ours", "'30s' is not"),
    (lambda o: server(o)["env"].append({"name": "LSTMSERVE_LISTEN", "value": "x:1"}), "settings_are_ours", "twice"),
    (lambda o: server(o).update(command=["lstmserve"]), "settings_are_ours", "the container runs ['lstmserve']"),
    (
        lambda o: variable(o, "LSTMSERVE_LISTEN").update(value="0.0.0.0:8080"),
        "ports_are_those_of_the_server",
        "['8080']",
    ),
    (lambda o: variable(o, "LSTMSERVE_METRICS").update(value="0.0.0.0:91"), "ports_are_those_of_the_server", "at 91"),
    (lambda o: server(o)["ports"][0].update(containerPort=8080), "ports_are_those_of_the_server", "8080"),
    (lambda o: named(o, "Service")["spec"]["ports"][0].update(port=80), "ports_are_those_of_the_server", "80"),
    (
        lambda o: named(o, "Service")["spec"]["ports"][0].update(targetPort="http"),
        "ports_are_those_of_the_server",
        "http",
    ),
    (lambda o: named(o, "NetworkPolicy")["spec"]["ingress"].pop(), "ports_are_those_of_the_server", "lets [50051] in"),
    (
        lambda o: pod_of(named(o, "Deployment")).update(terminationGracePeriodSeconds=44),
        "grace_fits_the_drain",
        "45.0 s",
    ),
    (lambda o: variable(o, "LSTMSERVE_DRAIN_SECONDS").update(value="31"), "grace_fits_the_drain", "46.0 s, and 45 s"),
    (
        lambda o: variable(o, "LSTMSERVE_LAME_DUCK_SECONDS").update(value="7"),
        "grace_fits_the_drain",
        "47.0 s, and 45 s",
    ),
    (
        lambda o: server(o)["lifecycle"]["preStop"]["sleep"].update(seconds=8),
        "grace_fits_the_drain",
        "48.0 s, and 45 s",
    ),
    (
        lambda o: server(o)["readinessProbe"].update(grpc={"port": 50051, "service": "lstmserve.v1.Lstm"}),
        "probes_ask_for_what_there_is",
        "readinessProbe asks 50051 for 'lstmserve.v1.Lstm'",
    ),
    (
        lambda o: server(o)["livenessProbe"].update(grpc={"port": 9090, "service": ""}),
        "probes_ask_for_what_there_is",
        "livenessProbe asks 9090 for ''",
    ),
    (
        lambda o: server(o)["startupProbe"].update(tcpSocket={"port": 50051}),
        "probes_ask_for_what_there_is",
        "startupProbe",
    ),
    (lambda o: server(o)["startupProbe"].update(failureThreshold=60), "probes_ask_for_what_there_is", "is given 60 s"),
    (
        lambda o: server(o)["env"].append({"name": "LSTMSERVE_TLS_CERTIFICATE", "value": "/tls/tls.crt"}),
        "probes_ask_for_what_there_is",
        "startupProbe speaks no TLS",
    ),
    (
        lambda o: named(o, "Service")["spec"].update(selector={"app": "lstmserve"}),
        "selectors_match",
        "Service/lstmserve",
    ),
    (lambda o: relabel(o, "component", "other"), "selectors_match", "lstmserve selects the pods of []"),
    (lambda o: relabel(o, "name", "other"), "selectors_match", "lstmserve selects the pods of []"),
    (
        lambda o: named(o, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].update({"app": "x"}),
        "selectors_match",
        "PodDisruptionBudget/lstmserve selects the pods of []",
    ),
    (
        lambda o: named(o, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].update({"app": "x"}),
        "selectors_match",
        "NetworkPolicy/lstmserve selects the pods of []",
    ),
    (
        lambda o: spread(o)["labelSelector"]["matchLabels"].update({"app": "x"}),
        "selectors_match",
        "topology.kubernetes.io/zone spreads the pods of []",
    ),
    (
        lambda o: o.remove(named(o, "Service")),
        "services_are_for_both_ways_of_balancing",
        "{'lstmserve-headless': 'None'}",
    ),
    (
        lambda o: named(o, "Service", "lstmserve-headless")["spec"].pop("clusterIP"),
        "services_are_for_both_ways_of_balancing",
        "'lstmserve-headless': 'its own'",
    ),
    (
        lambda o: named(o, "Service")["spec"].update(sessionAffinity="ClientIP"),
        "services_are_for_both_ways_of_balancing",
        "callers stick to a replica",
    ),
    (
        lambda o: named(o, "ServiceMonitor")["spec"]["selector"]["matchLabels"].pop("app.kubernetes.io/component"),
        "metrics_are_collected_once",
        "['lstmserve', 'lstmserve-headless']",
    ),
    (
        lambda o: named(o, "ServiceMonitor")["spec"]["endpoints"][0].update(port="http"),
        "metrics_are_collected_once",
        "http",
    ),
    (
        lambda o: named(o, "ServiceMonitor")["spec"]["endpoints"][0].update(path="/"),
        "metrics_are_collected_once",
        "no page",
    ),
    (
        lambda o: named(o, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"].update(name="lstmserver"),
        "scaling_is_of_the_deployment",
        "'name': 'lstmserver'",
    ),
    (
        lambda o: named(o, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"].update(apiVersion="v1"),
        "scaling_is_of_the_deployment",
        "'apiVersion': 'v1'",
    ),
    (lambda o: named(o, "Deployment")["spec"].update(replicas=3), "scaling_is_of_the_deployment", "is set twice"),
    (lambda o: metric(o).update(name="calls"), "scaling_is_of_the_deployment", "goes by {'calls'}"),
    (lambda o: server(o)["resources"]["requests"].pop("cpu"), "scaling_is_of_the_deployment", "of nothing"),
    (
        lambda o: named(o, "PodDisruptionBudget")["spec"].update(maxUnavailable=3),
        "scaling_is_of_the_deployment",
        "or all",
    ),
    (
        lambda o: o.remove(named(o, "PersistentVolumeClaim", "lstmserve-models")),
        "what_is_mounted_is_there",
        "there is no PersistentVolumeClaim/lstmserve-models",
    ),
    (
        lambda o: server(o)["volumeMounts"].append({"name": "x", "mountPath": "/x"}),
        "what_is_mounted_is_there",
        "left over",
    ),
    (
        lambda o: server(o)["volumeMounts"][0].update(mountPath="/model"),
        "what_is_mounted_is_there",
        "/models/forecast.keras",
    ),
    (lambda o: server(o)["volumeMounts"][0].pop("readOnly"), "what_is_mounted_is_there", "/models is writable"),
    (
        lambda o: pod_of(named(o, "Deployment")).update(automountServiceAccountToken=True),
        "pods_are_restricted",
        "token",
    ),
    (lambda o: pod_of(named(o, "Deployment")).update(enableServiceLinks=True), "pods_are_restricted", "from Services"),
    (lambda o: pod_of(named(o, "Deployment")).update(hostNetwork=False), "pods_are_restricted", "hostNetwork"),
    (lambda o: context(o).update(runAsNonRoot=False), "pods_are_restricted", "root may run"),
    (lambda o: context(o).update(runAsUser=1000), "pods_are_restricted", "'runAsUser': 1000"),
    (lambda o: context(o).update(seccompProfile={"type": "Unconfined"}), "pods_are_restricted", "Unconfined"),
    (lambda o: server(o)["securityContext"].update(readOnlyRootFilesystem=False), "pods_are_restricted", "False"),
    (lambda o: server(o)["securityContext"].update(allowPrivilegeEscalation=True), "pods_are_restricted", "True"),
    (
        lambda o: server(o)["securityContext"]["capabilities"].update(add=["SYS_PTRACE"]),
        "pods_are_restricted",
        "PTRACE",
    ),
    (lambda o: server(o)["resources"].update(limits={}), "pods_are_restricted", "memory has no limit"),
    (
        lambda o: pod_of(named(o, "Deployment"))["volumes"].append({"name": "tmp", "emptyDir": {}}),
        "pods_are_restricted",
        "has no limit",
    ),
    (
        lambda o: pod_of(named(o, "Deployment"))["volumes"].append({"name": "tmp", "hostPath": {"path": "/tmp"}}),
        "pods_are_restricted",
        "hostPath",
    ),
    (lambda o: named(o, "NetworkPolicy")["spec"].update(egress=[{}]), "nothing_goes_out", "[{}] is let out"),
    (lambda o: named(o, "NetworkPolicy")["spec"].update(policyTypes=["Ingress"]), "nothing_goes_out", "['Ingress']"),
    (lambda o: o.remove(named(o, "NetworkPolicy")), "nothing_goes_out", "there is no policy"),
    (lambda o: strategy(o).update(maxUnavailable=1), "an_update_costs_no_capacity", "'maxUnavailable': 1"),
    (lambda o: strategy(o).update(maxSurge=0), "an_update_costs_no_capacity", "'maxSurge': 0"),
    (
        lambda o: pod_of(named(o, "Deployment"))["topologySpreadConstraints"].pop(),
        "an_update_costs_no_capacity",
        "zone",
    ),
]


@pytest.mark.parametrize(("damage", "name", "text"), BROKEN)
def test_what_is_broken_is_found(damage, name, text):
    """A manifest with one thing wrong does not pass the check for it."""
    objects = build(FOLDER / "overlays" / "plain")
    damage(objects)
    check = getattr(manifests, name)

    with pytest.raises((AssertionError, KeyError), match=re.escape(text)):
        check(objects)


def test_every_check_is_seen_to_fail():
    """There is no check that nothing is broken for."""
    assert {check.__name__ for check in manifests.CHECKS} == {name for _, name, _ in BROKEN}


def test_the_other_overlays_are_broken_in_their_own_ways():
    """A certificate that no one makes, and a shadow that the Deployment takes for a replica of its own, are found."""
    encrypted = build(FOLDER / "overlays" / "mutual-tls")
    pod_of(named(encrypted, "Deployment"))["volumes"][0]["secret"]["secretName"] = "lstmserve-certificate"
    with pytest.raises(AssertionError, match="there is no Secret/lstmserve-certificate"):
        manifests.what_is_mounted_is_there(encrypted)

    shadow = build(FOLDER / "overlays" / "shadow")
    named(shadow, "Deployment", "lstmserve-shadow")["spec"]["template"]["metadata"]["labels"] |= {
        "app.kubernetes.io/component": "server"
    }
    with pytest.raises(
        AssertionError, match=re.escape("lstmserve selects the pods of ['lstmserve', 'lstmserve-shadow']")
    ):
        manifests.selectors_match(shadow)


def test_one_replica_shadows():
    """Of the overlay shadow one replica compares, and none of the others."""
    objects = build(FOLDER / "overlays" / "shadow")
    shadowing = {
        item["metadata"]["name"]: (manifests.variables(item).get("LSTMSERVE_SHADOW"), item["spec"].get("replicas"))
        for item in of_kind(objects, "Deployment")
    }

    assert shadowing == {"lstmserve": (None, None), "lstmserve-shadow": ("0.05", 1)}


def test_clients_show_certificates():
    """The overlay mutual-tls names a certificate, its key, and the authority of clients."""
    (deployment,) = of_kind(build(FOLDER / "overlays" / "mutual-tls"), "Deployment")
    names = [name for name in manifests.variables(deployment) if name.startswith("LSTMSERVE_TLS_")]

    assert sorted(names) == ["LSTMSERVE_TLS_CERTIFICATE", "LSTMSERVE_TLS_CLIENT_CA", "LSTMSERVE_TLS_KEY"]


def test_the_readme_names_the_versions_that_are_tested():
    """README says from which version on the manifests are right, and from which on images can be mounted."""
    text = (FOLDER / "README.md").read_text()

    assert f"For Kubernetes {manifests.OLDEST} or newer" in text
    assert f"(Kubernetes from {manifests.IMAGE_VOLUMES_SINCE} on" in text


def test_the_server_takes_the_environment_of_its_container():
    """With the environment of the container, but ports and a model of its own, a server starts, and has what the probes ask for."""
    objects = build(FOLDER / "overlays" / "plain")
    environment = manifests.variables(named(objects, "Deployment")) | {
        "LSTMSERVE_MODELS": f"forecast={SUNSPOTS}",
        "LSTMSERVE_LISTEN": "127.0.0.1:0",
        "LSTMSERVE_METRICS": "127.0.0.1:0",
        "LSTMSERVE_LAME_DUCK_SECONDS": "0",
    }
    probes = [server(objects)[name]["grpc"] for name in ("startupProbe", "readinessProbe", "livenessProbe")]
    with live.LiveServer(env=environment) as running:
        running.wait_for("serving")
        with grpc.insecure_channel(running.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            for probe in probes:
                answer = health.Check(health_pb2.HealthCheckRequest(service=probe["service"]), timeout=10)
                assert answer.status == health_pb2.HealthCheckResponse.SERVING


BLOCKS = re.findall(r"^```yaml\n(.*?)^```$", (FOLDER / "README.md").read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", [block for block in BLOCKS if "kind: Kustomization" in block])
def test_what_the_readme_shows_can_be_built(block, tmp_path):
    """An overlay that README shows is right in the same ways."""
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    folder = tmp_path / "kubernetes" / "overlays" / "yours"
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(block)
    shutil.copy(SUNSPOTS, folder / "forecast.keras")
    objects = build(folder)
    for check in manifests.CHECKS:
        check(objects)

    assert "registry.example/lstmserve" in server(objects)["image"]


def test_a_model_may_be_a_link(tmp_path):
    """A model is served from a ConfigMap, where each file is a link into a folder that is a link itself."""
    folder = tmp_path / "..2026_11_24"
    folder.mkdir()
    shutil.copy(SUNSPOTS, folder / "forecast.keras")
    (tmp_path / "..data").symlink_to(folder.name)
    (tmp_path / "forecast.keras").symlink_to("..data/forecast.keras")

    with live.serving(f"forecast={tmp_path / 'forecast.keras'}", *live.QUICK) as running:
        assert running.stop() == 0
