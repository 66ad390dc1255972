"""The configuration file."""

import pytest

from uq_llm_integrations import (
    Abstain,
    BestOfN,
    Boundary,
    ChatVLLMUncertainty,
    Configuration,
    ConfigurationError,
    EarlyStop,
    Retry,
    Single,
    Stepwise,
    VLLMStepGenerator,
    VLLMUncertaintyLLM,
    agreement,
    score,
    token_max,
    worst_window,
)

FILE = """
generator: {type: vllm, model: org/name, gpu_memory_utilization: 0.9}
sampling: {temperature: 0.7, max_tokens: 128}
scorer: {type: [entropy, perplexity]}
strategy:
  type: retry
  when: agreement < 0.5
  attempts: 2
  temperatures: [0.5, 0.3]
  strategy: {type: best_of_n, n: 8, by: borda}
uncertain_when: mean_nll > 0.6 or not worst_window(entropy, 8) <= 3
on_high_uncertainty: abstain
early_stop: {above: 3.0, window: 8}
"""


def test_a_file_says_all_that_the_class_takes(tmp_path):
    path = tmp_path / "uncertainty.yaml"
    path.write_text(FILE)
    llm = VLLMUncertaintyLLM.from_config(path)
    assert (llm.model, llm.engine_args) == ("org/name", {"gpu_memory_utilization": 0.9})
    assert (llm.temperature, llm.max_tokens) == (0.7, 128)
    assert llm.methods == ("entropy", "perplexity")
    assert isinstance(llm.strategy, Retry)
    assert llm.strategy.strategy == BestOfN(8, "borda")
    assert llm.strategy.when == (agreement() < 0.5)
    assert llm.strategy.attempts == 2
    assert llm.strategy.temperatures == (0.5, 0.3)
    assert llm.uncertain_when == (score("mean_nll") > 0.6) | ~(worst_window("entropy", 8) <= 3)
    assert llm.on_high_uncertainty == "abstain"
    assert llm.early_stop == EarlyStop(3.0, window=8)


def test_a_file_says_what_only_chat_classes_have():
    file = {
        "generator": {"type": "vllm", "model": "org/name"},
        "tool_parser": "hermes",
        "chat_template_kwargs": {"enable_thinking": False},
        "stop_if": "worst_window(entropy, 8) > 3",
    }
    llm = ChatVLLMUncertainty.from_config(file)
    assert (llm.tool_parser, llm.chat_template_kwargs) == ("hermes", {"enable_thinking": False})
    assert llm.stop_if == (worst_window("entropy", 8) > 3)
    with pytest.raises(ConfigurationError, match="tool_parser means nothing"):
        VLLMUncertaintyLLM.from_config(file)


def test_a_step_generator_takes_a_stepwise_strategy():
    file = {
        "generator": {"type": "vllm", "model": "org/name"},
        "strategy": {"type": "stepwise", "n": 3, "by": "entropy"},
        "scorer": {"type": "entropy"},
        "sampling": {"temperature": 0.4},
    }
    steps = VLLMStepGenerator.from_config(file)
    assert steps.model.settings.strategy == Stepwise(3, "entropy")
    assert steps.model.settings.temperature == 0.4
    with pytest.raises(ConfigurationError, match="'best_of_n', not 'stepwise'"):
        VLLMStepGenerator.from_config(file | {"strategy": {"type": "best_of_n"}})


def test_what_is_not_said_stays_at_its_default():
    assert Configuration.read({"generator": {"model": "org/name"}}).strategy == Single()


def test_a_scorer_is_another_way_to_write_methods():
    scorer = Configuration.read({"generator": {"model": "m"}, "scorer": {"type": "maxprob"}})
    assert scorer.methods == ("maxprob",)


def test_strategies_nest():
    section = {
        "type": "abstain",
        "when": "token_max(entropy) > 4",
        "action": "raise",
        "strategy": {"type": "stepwise", "n": 2, "boundary": {"strings": ["\n"], "max_tokens": 9}},
    }
    configuration = Configuration.read({"generator": {"model": "m"}, "strategy": section})
    stepwise = Stepwise(2, boundary=Boundary(("\n",), max_tokens=9))
    expected = Abstain(stepwise, token_max("entropy") > 4, "raise")
    assert configuration.strategy == expected


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strategy": {"type": "best"}}, "strategy"),
        ({"strategy": {"type": "best_of_n", "N": 3}}, "strategy.best_of_n.N"),
        ({"strategy": {"type": "retry", "when": "entropie > 1"}}, "did you mean 'entropy'"),
        ({"strategy": {"type": "retry_errors", "attempts": 0}}, "attempts is 0"),
        ({"uncertain_when": "entropy"}, "wanted a comparison"),
        ({"on_high_uncertainty": "stop"}, "on_high_uncertainty: .*annotate"),
        ({"generator": {"type": "vllm"}}, "generator.vllm.model: Field required"),
        ({"nonsense": 1}, "unknown option 'nonsense'"),
    ],
)
def test_errors_name_the_place(change, message):
    with pytest.raises(ConfigurationError, match=message):
        Configuration.read({"generator": {"model": "m"}} | change)


def test_a_file_that_cannot_be_read_is_an_error(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Configuration.read(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        Configuration.read(tmp_path / "bad.yaml")
