"""What the pages say of the code holds for the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml

import uq_llm_integrations
from uq_llm_integrations import METHODS, UncertaintyError

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"


def test_every_method_has_a_formula() -> None:
    assert yaml.safe_load((DOCS / "formulas.yml").read_text()).keys() == METHODS.keys()


def test_the_readme_says_how_many_methods_there_are() -> None:
    assert f"{len(METHODS)} methods" in (ROOT / "README.md").read_text()


def test_every_error_is_listed() -> None:
    def kinds(error: type[UncertaintyError]) -> set[str]:
        return {error.__name__}.union(*map(kinds, error.__subclasses__()))

    page = (DOCS / "how-to" / "errors.md").read_text()
    public = kinds(UncertaintyError) & {*uq_llm_integrations.__all__}
    assert {name for name in public if f"`{name}`" not in page} == set()


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_bytes()) <= 10_000


def test_every_page_is_in_the_navigation() -> None:
    named = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text()))
    assert named == {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}


def test_every_benchmark_has_its_script_on_the_page() -> None:
    page = (DOCS / "benchmarks.md").read_text()
    for result in (ROOT / "benchmarks" / "results").glob("*.json"):
        assert json.loads(result.read_text())["goals"]
        assert f"benchmarks.{result.stem}" in page
