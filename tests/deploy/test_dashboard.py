"""The dashboard shows metrics that exist: the client's, the plugin's and vLLM's."""

from __future__ import annotations

import ast
import json
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY

from tests.deploy.test_manifests import DEPLOY, family_names
from uq_llm_integrations import ScriptedBackend, UncertaintyModel
from uq_llm_integrations.backends.server.serving.counters import _collectors
from uq_llm_integrations.telemetry import instruments

DASHBOARD = json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())
PANELS = [one for one in DASHBOARD["panels"] if one["type"] != "row"]
QUERIES = [target["expr"] for one in PANELS for target in one["targets"]]
QUERIES += [one["expr"] for one in DASHBOARD["annotations"]["list"]]
QUERIES += [
    one["query"]["query"] for one in DASHBOARD["templating"]["list"] if one["type"] == "query"
]


def read(prefix: str) -> set[str]:
    return {name for query in QUERIES for name in re.findall(rf"\b{prefix}\w+", query)}


@pytest.fixture
def exported(monkeypatch):
    """Our metrics as Prometheus has them: their names, and the labels of each."""
    reader = PrometheusMetricReader()
    provider = MeterProvider([reader])
    monkeypatch.setattr(metrics, "get_meter", provider.get_meter)
    instruments._instruments.cache_clear()
    UncertaintyModel(ScriptedBackend(["Paris"]), methods="perplexity").generate("?")
    for one in instruments.METRICS:
        instruments.record(one, 1)
    samples = [sample for family in REGISTRY.collect() for sample in family.samples]
    yield {
        name: {label for one in samples if one.name == name for label in one.labels}
        for name in {one.name for one in samples}
    }
    provider.shutdown()
    instruments._instruments.cache_clear()


def test_the_clients_metrics_and_their_labels_exist_and_all_are_shown(exported) -> None:
    labels = {label for found in exported.values() for label in found}
    used = read("gen_ai_") | read("uq_llm_")
    assert used <= exported.keys() | labels
    for one in instruments.METRICS:
        assert any(name.startswith(one.name.replace(".", "_")) for name in used), one.name


def test_the_plugins_metrics_exist() -> None:
    names = {sample for one in _collectors() for sample in family_names(one)}
    assert read("uq_llm:") and read("uq_llm:") <= names


def vllms_metrics() -> set[str]:
    """The samples of all metrics in the source of the vLLM that is installed."""
    (folder,) = find_spec("vllm").submodule_search_locations
    tree = ast.parse((Path(folder) / "v1" / "metrics" / "loggers.py").read_text())
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            given = {one.arg: one.value for one in node.keywords}
            if isinstance(name := given.get("name"), ast.Constant):
                kind = ast.unparse(node.func).lower()
                ends = ("_sum", "_count", "_bucket") if "histogram" in kind else ("",)
                ends = ("_total",) if "counter" in kind else ends
                names |= {f"{name.value}{end}" for end in ends}
    return names


def test_vllms_metrics_exist() -> None:
    assert len(read("vllm:")) > 8 and read("vllm:") <= vllms_metrics()


def test_every_panel_says_what_it_shows_and_has_a_place_of_its_own() -> None:
    assert all(one["description"] and one["title"] for one in PANELS)
    assert len({one["id"] for one in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    taken = [
        (x, y)
        for one in DASHBOARD["panels"]
        for place in [one["gridPos"]]
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(taken) == len(set(taken)) and max(x for x, _ in taken) < 24


def test_every_variable_is_used_and_defined() -> None:
    defined = {one["name"] for one in DASHBOARD["templating"]["list"]}
    written = json.dumps(DASHBOARD)
    used = set(re.findall(r"\$\{?(\w+)", written)) - {"__rate_interval", "__all"}
    assert used == defined
