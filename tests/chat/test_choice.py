"""The ways in which frameworks and OpenAI's API choose a tool."""

import pytest

from uq_llm_integrations import errors
from uq_llm_integrations.chat.parsers import tool_choice_of


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, "auto"),
        ("none", "none"),
        ("any", "required"),
        (True, "required"),
        ("required", "required"),
        ("add", "add"),
        ({"type": "function", "function": {"name": "add"}}, "add"),
        ({"type": "tool", "name": "add"}, "add"),
    ],
)
def test_there_are_many_ways_to_choose_a_tool(given, meant):
    assert tool_choice_of(given) == meant


def test_a_choice_that_means_nothing_is_refused():
    with pytest.raises(errors.InvalidRequestError, match="tool_choice is 3"):
        tool_choice_of(3)
