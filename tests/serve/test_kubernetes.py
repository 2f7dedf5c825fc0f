"""The manifests for Kubernetes: held against its schemas, and against what the server takes and prints."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest
import yaml

from bertport.runtime.memory import parse_memory
from bertport.serve.app import OPEN
from bertport.serve.cli import serve
from bertport.serve.server import LAST_SECONDS
from bertport.serve.settings import LIMITS

FOLDER = Path(__file__).parents[2] / "docs" / "how-to" / "deploy" / "kubernetes"
VERSIONS = ("1.27", "1.37")
"""The oldest version of Kubernetes whose schemas are looked at, and the newest that the validator holds."""
KINDS = {"Deployment", "Service", "HorizontalPodAutoscaler", "PodDisruptionBudget"}


def documents():
    return [document for path in FOLDER.iterdir() for document in yaml.safe_load_all(path.read_text("utf-8"))]


MANIFESTS = {each["kind"]: each for each in documents() if isinstance(each, dict) and "kind" in each}
POD = MANIFESTS["Deployment"]["spec"]["template"]
[CONTAINER] = POD["spec"]["containers"]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_they_are_what_kubernetes_takes(kind, version):
    validator = pytest.importorskip("kubernetes_validate")
    assert validator.validate(MANIFESTS[kind], version, strict=True).startswith(version)


def test_the_validator_refuses_what_kubernetes_does_not_know():
    validator = pytest.importorskip("kubernetes_validate")
    broken = MANIFESTS["Service"] | {"spec": MANIFESTS["Service"]["spec"] | {"prots": []}}
    with pytest.raises(validator.ValidationError, match="prots"):
        validator.validate(broken, VERSIONS[-1], strict=True)


def test_they_belong_together():
    assert set(MANIFESTS) == KINDS
    labels = POD["metadata"]["labels"].items()
    assert MANIFESTS["Deployment"]["spec"]["selector"]["matchLabels"].items() <= labels
    assert MANIFESTS["Service"]["spec"]["selector"].items() <= labels
    assert MANIFESTS["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"].items() <= labels
    target = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", MANIFESTS["Deployment"]["metadata"]["name"])
    [port] = CONTAINER["ports"]
    assert MANIFESTS["Service"]["spec"]["ports"][0]["targetPort"] == port["name"]
    assert "replicas" not in MANIFESTS["Deployment"]["spec"], "applying it again would undo the autoscaler's number"


def test_the_pod_is_locked_down():
    pod, container = POD["spec"]["securityContext"], CONTAINER["securityContext"]
    assert pod["runAsNonRoot"]
    assert f"USER {pod['runAsUser']}:{pod['runAsGroup']}\n" in (FOLDER.parent / "Dockerfile").read_text("utf-8")
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["spec"]["automountServiceAccountToken"] is False
    assert CONTAINER["resources"]["limits"]["memory"] == CONTAINER["resources"]["requests"]["memory"]


def test_the_server_takes_what_the_pod_gives_it():
    """Each variable is one of the server's, of a value that it takes, and the grace period is long enough."""
    known = {option.envvar: option for option in serve.params if isinstance(option, click.Option) and option.envvar}
    given = {each["name"]: each.get("value") for each in CONTAINER["env"]}
    assert set(given) <= set(known)
    for name, value in given.items():
        if value is not None:
            known[name].type.convert(value, known[name], None)
    assert int(given["BERTPORT_PORT"]) == CONTAINER["ports"][0]["containerPort"]
    limit = CONTAINER["resources"]["limits"]["memory"]
    assert parse_memory(given["BERTPORT_MEMORY"]) < parse_memory(f"{limit}B")
    needed = float(given["BERTPORT_DRAIN_SECONDS"]) + LIMITS["request_timeout"].default + LAST_SECONDS
    assert POD["spec"]["terminationGracePeriodSeconds"] > needed


def test_probes_ask_addresses_that_need_no_key(server):
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = CONTAINER[probe]["httpGet"]
        assert asked["port"] == CONTAINER["ports"][0]["name"]
        assert asked["path"] in OPEN
        assert server.get(asked["path"])[0] == 200


def test_the_autoscaler_asks_for_a_metric_that_the_server_prints(server):
    from prometheus_client.parser import text_string_to_metric_families

    [metric] = MANIFESTS["HorizontalPodAutoscaler"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    [rules] = [each["rules"]["custom"] for each in documents() if isinstance(each, dict) and "rules" in each]
    [rule] = rules
    assert rule["name"]["as"] == name
    assert re.match(r"\w+", rule["seriesQuery"])[0] == name
    _, text = server.get("/metrics")
    families = list(text_string_to_metric_families(text))
    assert name in {sample.name for family in families for sample in family.samples}
    printed = {family.name for family in families}
    for path in (*FOLDER.iterdir(), FOLDER.parents[1] / "kubernetes.md"):
        for found in re.findall(r"\bbertport_[a-z_]+", path.read_text("utf-8")):
            assert found in printed, f"{path.name} names {found}"


def test_prometheus_is_sent_to_the_port_and_pods_of_the_deployment(server):
    [jobs] = [each for each in documents() if isinstance(each, list)]
    [job] = jobs
    assert server.get(job["metrics_path"])[0] == 200
    kept = {rule["source_labels"][0]: rule["regex"] for rule in job["relabel_configs"] if rule.get("action") == "keep"}
    assert kept == {
        "__meta_kubernetes_pod_label_app_kubernetes_io_name": POD["metadata"]["labels"]["app.kubernetes.io/name"],
        "__meta_kubernetes_pod_container_port_name": CONTAINER["ports"][0]["name"],
    }
    targets = {rule["target_label"] for rule in job["relabel_configs"] if "target_label" in rule}
    [rules] = [each["rules"]["custom"] for each in documents() if isinstance(each, dict) and "rules" in each]
    assert set(rules[0]["resources"]["overrides"]) == targets, "the adapter's labels are those that Prometheus stores"
