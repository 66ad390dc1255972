"""What is under deploy/: valid by Kubernetes' schemas, and about things that are there."""

import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml

from uq_llm_integrations.backends.server.serving import counters

DEPLOY = Path(__file__).parents[2] / "deploy"
MANIFESTS = sorted(
    path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.stem != "kustomization"
)
OLDEST = "1.31"


def read(path: Path):
    return yaml.safe_load(path.read_text())


@pytest.mark.parametrize("version", [OLDEST, kubernetes_validate.latest_version()])
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_manifest_is_valid(path, version):
    kubernetes_validate.validate(read(path), version, strict=True)


def test_what_is_applied_together_is_all_there_is():
    named = read(DEPLOY / "kubernetes" / "kustomization.yaml")["resources"]
    assert sorted(named) == [path.name for path in MANIFESTS]


def test_the_service_finds_the_servers_and_gives_each_an_address():
    servers = read(DEPLOY / "kubernetes" / "servers.yaml")
    service = read(DEPLOY / "kubernetes" / "service.yaml")
    assert servers["spec"]["serviceName"] == service["metadata"]["name"]
    assert servers["spec"]["template"]["metadata"]["labels"] == service["spec"]["selector"]
    assert service["spec"]["clusterIP"] == "None"


def test_a_pod_ends_within_the_time_that_it_is_given():
    pod = read(DEPLOY / "kubernetes" / "servers.yaml")["spec"]["template"]["spec"]
    (_, seconds) = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert int(seconds) < pod["terminationGracePeriodSeconds"]


def test_alerts_are_on_metrics_that_the_server_has():
    entropy, answers = counters._collectors()
    known = {sample.name for one in (entropy, answers) for sample in _samples(one)}
    named = set(re.findall(r"uq_llm:\w+", (DEPLOY / "alerts.yaml").read_text()))
    assert named and named <= known


def _samples(collector):
    labels = {"model_name": "m", "exact": "true"}
    collector.labels(**{name: labels[name] for name in collector._labelnames})
    return [sample for metric in collector.collect() for sample in metric.samples]


def test_the_router_of_the_compose_file_is_in_front_of_its_servers():
    compose = read(DEPLOY / "compose.yaml")
    command = compose["services"]["router"]["command"]
    assert re.findall(r"http://(\w+):8000", command) == ["one", "two"]
    targets = read(DEPLOY / "prometheus.yaml")["scrape_configs"][0]["static_configs"][0]["targets"]
    assert targets == ["one:8000", "two:8000"]
