"""What lies in deploy/ is what Kubernetes, vLLM and the plugin know."""

from __future__ import annotations

import re
from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.entrypoints.launchers.cli_args import FrontendArgs

from uq_llm_integrations.backends.server.serving.counters import _collectors

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"


def documents(path: Path) -> list[dict]:
    return list(yaml.safe_load_all(path.read_text()))


def manifests() -> list[dict]:
    names = documents(KUBERNETES / "kustomization.yaml")[0]["resources"]
    return [one for name in names for one in documents(KUBERNETES / name)]


def server_set() -> dict:
    (found,) = [one for one in manifests() if one["kind"] == "StatefulSet"]
    return found["spec"]


def pod() -> dict:
    return server_set()["template"]["spec"]


def servers() -> list[list[str]]:
    """Return the commands of all servers, those of Kubernetes and of compose."""
    services = documents(DEPLOY / "compose.yaml")[0]["services"]
    composed = [one["command"] for name, one in services.items() if name.startswith("server")]
    return [pod()["containers"][0]["args"], *composed]


@pytest.mark.parametrize("version", ["1.30", "1.37"])
def test_manifests_are_valid(version) -> None:
    for manifest in manifests():
        kubernetes_validate.validate(manifest, version, strict=True)


def test_every_manifest_is_applied() -> None:
    listed = documents(KUBERNETES / "kustomization.yaml")[0]["resources"]
    assert {*listed, "kustomization.yaml"} == {one.name for one in KUBERNETES.iterdir()}


def test_pods_are_found_by_what_selects_them() -> None:
    labels = {"app": "uq-vllm"}
    for manifest in manifests():
        spec = manifest.get("spec", {})
        if manifest["kind"] == "Service":
            assert spec["selector"] == labels
        elif "selector" in spec or "podSelector" in spec:
            selector = spec.get("selector") or spec["podSelector"]
            assert selector["matchLabels"] == labels


def test_a_pod_is_not_ended_before_its_answers_are() -> None:
    """Before vLLM is told to end, preStop sleeps; then it answers what it has begun."""
    server = pod()["containers"][0]
    (drain,) = [int(one.partition("=")[2]) for one in server["args"] if "shutdown" in one]
    sleep = int(server["lifecycle"]["preStop"]["exec"]["command"][1])
    assert sleep + drain < pod()["terminationGracePeriodSeconds"]


def test_secrets_come_from_a_secret_that_no_file_has() -> None:
    made = (KUBERNETES / "kustomization.yaml").read_text()
    (name,) = re.findall(r"create secret generic (\S+)", made)
    keys = re.findall(r"--from-literal=([\w-]+)=", made)
    for variable in pod()["containers"][0]["env"]:
        reference = variable["valueFrom"]["secretKeyRef"]
        assert reference["name"] == name and reference["key"] in keys
    assert "Secret" not in [one["kind"] for one in manifests()]


def test_each_pod_has_a_name_of_its_own() -> None:
    services = {one["metadata"]["name"]: one for one in manifests() if one["kind"] == "Service"}
    assert services[server_set()["serviceName"]]["spec"]["clusterIP"] == "None"


@pytest.mark.parametrize("command", servers())
def test_vllm_knows_the_flags(command) -> None:
    fields = AsyncEngineArgs.__dataclass_fields__ | FrontendArgs.__dataclass_fields__
    flags = [one.partition("=")[0] for one in command if one.startswith("--")]
    assert {flag[2:].replace("-", "_") for flag in flags} <= {*fields}


@pytest.mark.parametrize("command", servers())
def test_a_server_in_a_container_listens_to_its_network(command) -> None:
    assert "--host=0.0.0.0" in command


def test_alerts_read_metrics_that_exist() -> None:
    names = {sample for one in _collectors() for sample in family_names(one)}
    (group,) = documents(DEPLOY / "alerts.yaml")[0]["groups"]
    names |= {rule["record"] for rule in group["rules"] if "record" in rule}
    read = re.findall(r"uq_llm:[\w:]+", " ".join(rule["expr"] for rule in group["rules"]))
    assert {*read} <= names


def family_names(collector) -> set[str]:
    (family,) = collector.describe()
    ends = ("_sum", "_count", "_bucket") if family.type == "histogram" else ("_total",)
    return {f"{family.name}{end}" for end in ends}


def test_prometheus_scrapes_the_servers_of_compose() -> None:
    services = documents(DEPLOY / "compose.yaml")[0]["services"]
    (job,) = documents(DEPLOY / "prometheus.yaml")[0]["scrape_configs"]
    targets = {one.partition(":")[0] for one in job["static_configs"][0]["targets"]}
    assert targets == {one for one in services if one.startswith("server")}
