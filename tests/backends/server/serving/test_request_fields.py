"""The plugin's fields of a request's body."""

import pytest

from uq_llm_integrations import InvalidRequestError
from uq_llm_integrations.backends.server.serving.request_fields import (
    Wish,
    read_wish,
    refuse_scoring,
)


@pytest.mark.parametrize("fields", [None, {}, {"uncertainty": None}, {"uncertainty": True}])
def test_statistics_are_wanted_unless_it_is_said(fields):
    """Routers write bodies anew: they drop nulls, and may add them."""
    assert read_wish(fields) == Wish()


def test_what_is_not_wanted():
    assert read_wish({"uncertainty": False, "uncertainty_from": 3}) is None


def test_rows_and_scoring():
    fields = {"uncertainty": "rows", "uncertainty_from": 0, "another": [1]}
    assert read_wish(fields) == Wish(has_rows=True, scored_from=0)
    assert read_wish({}, echoes_logprobs=True) == Wish(scored_from=0)
    assert read_wish({"uncertainty_from": 4}, echoes_logprobs=True) == Wish(scored_from=4)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"uncertainty": "all"}, r"uncertainty is 'all'; allowed are true, 'rows' and false"),
        ({"uncertainty": 1}, "uncertainty is 1"),
        ({"uncertainty": []}, r"uncertainty is \[\]"),
        ({"uncertainty_from": -1}, "uncertainty_from is -1; allowed are whole numbers from 0"),
        ({"uncertainty_from": 1.0}, "uncertainty_from is 1.0"),
        ({"uncertainty_from": True}, "uncertainty_from is True"),
        ({"uncertainty": False, "uncertainty_from": "2"}, "uncertainty_from is '2'"),
        ({"uncertainty_from": 2**31}, "uncertainty_from is 2147483648"),
    ],
)
def test_what_is_refused(fields, message):
    with pytest.raises(InvalidRequestError, match=message):
        read_wish(fields)


def test_a_chats_prompt_cannot_be_scored():
    refuse_scoring({"uncertainty_from": None})
    with pytest.raises(InvalidRequestError, match="/v1/completions"):
        refuse_scoring({"uncertainty_from": 0})
