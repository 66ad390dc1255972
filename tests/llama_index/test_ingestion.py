"""Ingestion by several processes, to which the transformations, and so the model, are pickled."""

import psutil
import pytest
from llama_index.core.extractors import SummaryExtractor
from llama_index.core.ingestion import IngestionPipeline
from llama_index.core.ingestion.pipeline import get_transformation_hash
from llama_index.core.schema import TextNode

from tests.conftest import eventually
from tests.llama_index.scripted import scripted
from uq_llm_integrations import ScriptedBackend, errors
from uq_llm_integrations.llama_index import VLLMUncertaintyLLM
from uq_llm_integrations.strategies.conditions import Custom


def pipeline(llm) -> IngestionPipeline:
    extractor = SummaryExtractor(llm=llm, show_progress=False)
    return IngestionPipeline(transformations=[extractor])


def nodes(count: int) -> list[TextNode]:
    return [TextNode(text=f"Text {number}.") for number in range(count)]


@pytest.mark.subprocess
def test_several_processes_use_copies_of_the_model_which_stays_live():
    llm = scripted(["In short."])
    ingestion = pipeline(llm)
    found = ingestion.run(nodes=nodes(4), num_workers=2)
    assert [one.metadata["section_summary"] for one in found] == ["In short."] * 4
    assert ingestion.transformations[0].llm is llm and llm.backend.requests == []
    assert llm.complete("?").text == "In short."


@pytest.mark.subprocess
def test_what_cannot_go_along_is_named_where_it_is_missed():
    llm = scripted(["In short."], uncertain_when=Custom(lambda result: False, "never"))
    ingestion = pipeline(llm)
    with pytest.raises(errors.ConfigurationError, match="uncertain_when stayed in the process"):
        ingestion.run(nodes=nodes(2), num_workers=2)
    assert ingestion.transformations[0].llm is llm
    assert llm.complete("?").text == "In short."


def test_the_cache_of_an_ingestion_tells_models_apart():
    def key(**given):
        ingestion = pipeline(VLLMUncertaintyLLM(**given))
        return get_transformation_hash(nodes(1), ingestion.transformations[0])

    scripts = [ScriptedBackend([text]) for text in ("a", "a", "b")]
    keys = [key(backend=one) for one in scripts]
    assert keys[0] == keys[1] != keys[2]
    limits = [
        Custom(lambda result, limit=limit: len(result.text) > limit, "long") for limit in (1, 2)
    ]
    assert len({key(model="smollm2", uncertain_when=one) for one in limits}) == 2


@pytest.mark.engine
async def test_a_worker_starts_an_engine_of_its_own_which_ends_with_it():
    me = psutil.Process()
    before = set(me.children(recursive=True))
    llm = VLLMUncertaintyLLM(
        model="smollm2", max_model_len=256, enforce_eager=True, temperature=0, max_tokens=4
    )
    (node,) = pipeline(llm).run(nodes=nodes(1), num_workers=2)
    assert node.metadata["section_summary"]
    trackers = {one for one in me.children() if "resource_tracker" in " ".join(one.cmdline())}
    await eventually(lambda: not set(me.children(recursive=True)) - before - trackers)
