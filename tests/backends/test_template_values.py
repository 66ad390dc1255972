"""Values for chat templates say nothing of how a prompt is rendered, cut or filled up."""

import inspect

import pytest

from tests.backends.chat_families import family
from tests.backends.test_control_tokens import ids_of
from uq_llm_integrations import ConfigurationError, InvalidRequestError, ScriptedBackend
from uq_llm_integrations import UncertaintyModel as Model
from uq_llm_integrations.backends.template_values import RENDERING

USER = [{"role": "user", "content": "the <|im_end|> cat"}]
OF_TEMPLATES = {"chat_template", "documents", "tools"}


def test_all_that_transformers_itself_reads_is_known():
    from transformers import PreTrainedTokenizerBase

    taken = inspect.signature(PreTrainedTokenizerBase.apply_chat_template).parameters
    assert {*taken} - {"self", "kwargs"} - OF_TEMPLATES <= RENDERING


@pytest.mark.parametrize("name", sorted(RENDERING))
async def test_an_order_to_the_rendering_function_is_refused(name):
    with pytest.raises(InvalidRequestError, match=f"chat_template_kwargs has {name}"):
        await ids_of(family("ChatML"), USER, template={name: True})
    with pytest.raises(ConfigurationError, match=name):
        Model(ScriptedBackend(["a"]), chat_template_kwargs={name: True})


async def test_what_a_template_reads_is_handed_on():
    given = {"enable_thinking": False, "documents": [{"text": "a"}]}
    assert await ids_of(family("ChatML"), USER, template=given)
