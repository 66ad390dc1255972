"""A text that no tokenizer can read: only its own request fails, and says where the text stands."""

import json

import pytest

from tests.langchain.scripted_chat import scripted as chat_model
from uq_llm_integrations import (
    Conversation,
    HybridBackend,
    InvalidRequestError,
    ScriptedBackend,
    UncertaintyModel,
    VLLMUncertaintyLLM,
)
from uq_llm_integrations.backends.unicode_text import check_unicode

LONE = "a\ud800"
USER = {"role": "user", "content": "1 + 2?"}
TOOL = {"type": "function", "function": {"name": "add", "description": LONE, "parameters": {}}}


def model(script=("Paris",), **options) -> UncertaintyModel:
    return UncertaintyModel(ScriptedBackend(script), **options)


@pytest.mark.parametrize(
    ("call", "where"),
    [
        (lambda m: m.generate(LONE), "the prompt has a lone surrogate, '\\\\ud800', at position 1"),
        (lambda m: m.generate("?", stop=LONE), "stop"),
        (lambda m: m.generate("?", stop=["b", LONE]), "stop\\[1\\]"),
        (lambda m: m.generate("?", bad_words=[LONE]), "bad_words\\[0\\]"),
        (lambda m: m.generate("?", extra_args={LONE: 1}), "a name in extra_args"),
        (lambda m: m.score("?", LONE), "the text"),
        (lambda m: m.score_truncated("?", ["b", LONE]), "the text"),
        (lambda m: m.chat(LONE), "messages\\[0\\].content"),
        (lambda m: m.chat([USER, {"role": "user", "content": [LONE]}]), "messages\\[1\\].content"),
        (lambda m: list(m.stream([{"role": LONE, "content": ""}])), "messages\\[0\\].role"),
        (lambda m: m.chat([USER], tools=[TOOL]), "tools\\[0\\].function.description"),
        (lambda m: m.chat("?", schema={"title": LONE}), "structured_outputs.json.title"),
        (lambda m: m.chat("?", chat_template_kwargs={"x": LONE}), "chat_template_kwargs.x"),
        (lambda m: m.generate("?", abstention_text=LONE), "abstention_text"),
        (lambda m: m.chat(Conversation((USER,), template={"x": LONE})), "chat_template_kwargs.x"),
    ],
)
def test_the_text_and_its_position_are_named(call, where):
    backend = model()
    with pytest.raises(InvalidRequestError, match=where):
        call(backend)
    assert backend.generate("?").text == "Paris"


def test_the_other_prompts_of_a_batch_are_finished():
    backend = model()
    with pytest.raises(InvalidRequestError, match="the prompt") as caught:
        backend.generate_all(["a", LONE, "c"])
    assert {i: one.text for i, one in caught.value.completed.items()} == {0: "Paris", 2: "Paris"}


@pytest.mark.parametrize(
    "prompt", [LONE, 3, "", "x" * 5000], ids=["surrogate", "3", "none", "long"]
)
def test_one_prompt_that_can_never_work_fails_alone(prompt):
    with pytest.raises(InvalidRequestError) as caught:
        model().generate_all([prompt, "a"])
    assert list(caught.value.completed) == [1]


async def test_in_langchain_the_others_are_answered():
    llm = VLLMUncertaintyLLM(backend=ScriptedBackend(["Paris"]))
    for answers in (
        llm.batch(["a", LONE, "c"], return_exceptions=True),
        await llm.abatch(["a", LONE, "c"], return_exceptions=True),
        [
            getattr(one, "content", one)
            for one in chat_model("Paris").batch(["a", LONE, "c"], return_exceptions=True)
        ],
    ):
        assert answers[::2] == ["Paris", "Paris"]
        assert isinstance(answers[1], InvalidRequestError)
    with pytest.raises(InvalidRequestError) as caught:
        llm.batch(["a", LONE])
    assert list(caught.value.completed) == [0]


async def test_the_hybrid_backend_names_them_too():
    hybrid = HybridBackend(ScriptedBackend(["a"]), ScriptedBackend(["a"]))
    with pytest.raises(InvalidRequestError, match="the prompt"):
        await hybrid.encode(LONE)


def test_plain_data_are_looked_through_and_other_things_left_alone():
    check_unicode([{"naïve": ["東京", None, 3, b"\xff"]}, ("🙂",)], "data")
    with pytest.raises(InvalidRequestError, match=r"data\[0\].a\[1\] has a lone .* position 2"):
        check_unicode([{"a": ("b", "🙂b\udfff")}], "data")


async def test_what_json_says_of_a_call_is_looked_through():
    from tests.backends.test_codec import TemplateBackend

    function = {"name": "add", "arguments": json.dumps({"a": LONE})}
    calling = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
    with pytest.raises(InvalidRequestError, match=r"tool_calls\[0\].function.arguments.a"):
        await TemplateBackend("{{ tools }}").encode_chat(Conversation((USER, calling)))
