"""How far an answer rests on its sources, on models whose log-probabilities are in closed form."""

import asyncio
import json
from itertools import combinations, permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.backends.chat_families import FAMILIES, family
from tests.backends.test_control_tokens import Tokenizing
from tests.grounding.reading import Reading, adding, knowing
from uq_llm_integrations import (
    ConfigurationError,
    EmptyPromptError,
    EngineClosedError,
    EngineTimeoutError,
    EvidenceError,
    GroundedAnswer,
    Grounding,
    HighUncertaintyError,
    InvalidRequestError,
    MethodUnavailableError,
    ScriptedBackend,
    Source,
    SourcesTooLongError,
    UncertaintyModel,
)
from uq_llm_integrations.backends.control_tokens import ControlTokens
from uq_llm_integrations.calibration import fit_threshold
from uq_llm_integrations.grounding.ablation import Ablations
from uq_llm_integrations.grounding.grounding_options import LEAST_SUPPORT, as_sources

RAIN, OSLO, FACT = "It rains.", "Oslo is large.", "The capital is Oslo."
WEIGHTS = {RAIN: 0.25, OSLO: 1.0, FACT: 4.0}


def model(logprob=None, script=("Oslo",)) -> UncertaintyModel:
    return UncertaintyModel(Reading(logprob or adding(WEIGHTS), script))


def test_the_support_is_what_the_best_source_adds_to_the_log_probability():
    found = model().ground("Oslo", [RAIN, OSLO, FACT], "What is the capital?")
    assert found.support == pytest.approx(4 * 4.0)  # four tokens
    assert (found.logprob, found.logprob_without) == (pytest.approx(-19.0), pytest.approx(-40.0))
    assert found.tokens == ("O", "s", "l", "o")
    assert found.by_token == pytest.approx([5.25] * 4)


def test_each_source_contributes_its_own_part():
    found = model().ground("Oslo", [RAIN, OSLO, FACT])
    assert [one.contribution for one in found.sources] == pytest.approx([1.0, 4.0, 16.0])
    assert found.sources[1].by_token == pytest.approx([1.0] * 4)
    assert (found.main, found.sources[found.main].index) == (2, 2)
    assert [one.index for one in found.ranked] == [2, 1, 0]


def test_every_pass_has_the_same_prompt_but_for_the_sources_and_their_order_stays():
    found = model()
    found.ground("Oslo", [RAIN, OSLO], "Which?", Grounding("S: {sources}; Q: {question}"))
    every, *others = found.backend.scored
    assert every == f"S: {RAIN}\n\n{OSLO}; Q: Which?"
    assert others == [f"S: {OSLO}; Q: Which?", f"S: {RAIN}; Q: Which?", "S: ; Q: Which?"]


def test_a_source_is_scored_alone_and_left_out():
    found = model()
    found.ground("Oslo", [RAIN, OSLO, FACT], "", Grounding("S: {sources}", separator="+"))
    pairs, ones = [f"{OSLO}+{FACT}", f"{RAIN}+{FACT}", f"{RAIN}+{OSLO}"], [RAIN, OSLO, FACT]
    given = [f"{RAIN}+{OSLO}+{FACT}", *pairs, *ones, ""]
    assert found.backend.scored == [f"S: {one}" for one in given]


def test_places_within_a_source_are_text():
    found = model()
    found.ground("x", ["{question} {sources} {0}"], "Why?", Grounding("{sources} {question}"))
    assert found.backend.scored[0] == "{question} {sources} {0} Why?"


def test_an_answer_with_enough_support_is_grounded():
    found = model().ground("Oslo", [FACT])
    assert found.is_grounded and found.reason is None
    assert (found.decision.action, found.decision.is_uncertain) == ("accepted", False)
    assert found.least_support == LEAST_SUPPORT


def test_the_least_support_is_that_of_the_whole_answer():
    how = Grounding(least_support=16.5)
    assert not model().ground("Oslo", [FACT], "?", how).is_grounded
    assert model().ground("Oslo!", [FACT], "?", how).is_grounded


def test_a_threshold_with_a_promise_can_be_the_least_support():
    """Of 200 graded answers, those with a source that says it are right."""
    graded = [(FACT, True), (RAIN, False)] * 100
    scores = [model().ground("Oslo", [source]).score for source, _ in graded]
    assert [one.value for one in scores[:2]] == pytest.approx([-16.0, -1.0])
    threshold = fit_threshold(scores, [right for _, right in graded], risk=0.1)
    how = Grounding(least_support=-threshold.value, on_not_grounded="abstain")
    assert model().ground("Oslo", [FACT], "?", how).decision.action == "accepted"
    assert model().ground("Oslo", [RAIN], "?", how).decision.action == "abstained"


def test_a_support_that_is_not_known_is_a_score_that_is_not_known():
    score = model().ground("", [FACT]).score
    assert (score.value, score.reason) == (None, "the answer has no tokens")


def test_what_is_measured_does_not_depend_on_the_least_support():
    given = "Oslo", [FACT, FACT, RAIN], "?"
    low, high = (
        model(knowing(FACT)).ground(*given, Grounding(least_support=least)) for least in (-5, 50)
    )
    assert low.sources == high.sources
    assert (low.is_grounded, high.is_grounded) == (True, False)


def test_sources_that_speak_against_the_answer_are_said_to():
    found = model(adding({FACT: -2.0})).ground("Rome", [FACT])
    assert not found.is_grounded
    assert found.main is None
    assert found.reason == "each source makes the answer less probable, by 8 nats or more"


def test_what_the_model_says_in_any_case_is_not_supported():
    found = model(knowing(FACT, base=-0.2)).ground("Oslo", [FACT])
    assert not found.is_grounded
    assert "without any source, too, with a log-probability of -0.8" in (found.reason or "")


def test_an_answer_that_is_not_grounded_gives_way_to_another_text():
    how = Grounding(on_not_grounded="abstain", abstention_text="No idea.")
    found = model().ground("Oslo", [RAIN], "?", how)
    assert (found.text, found.answer) == ("No idea.", "Oslo")
    assert found.decision.action == "abstained"
    assert found.decision.condition == "support < 3"


def test_it_can_be_an_error_that_has_all_that_is_known():
    with pytest.raises(HighUncertaintyError, match="support < 3") as caught:
        model().ground("Oslo", [RAIN], "?", Grounding(on_not_grounded="raise"))
    assert caught.value.text == "Oslo"
    assert caught.value.uncertainty["grounding"]["support"] == pytest.approx(1.0)


def test_without_sources_nothing_is_supported_however_little_that_takes():
    found = model().ground("Oslo", [], "?", Grounding(least_support=-1))
    assert (found.support, found.is_grounded, found.main) == (0.0, False, None)
    assert (found.reason, found.cost.passes) == ("there are no sources", 1)


def test_one_source_has_all_of_the_support():
    found = model().ground("Oslo", [FACT])
    assert found.sources[0].contribution == found.support
    assert found.cost.passes == 2


def test_an_answer_without_tokens_has_no_support_and_costs_no_pass():
    for answer in ("", ()):
        found = model().ground(answer, [FACT])
        assert (found.support, found.is_grounded) == (None, None)
        assert (found.reason, found.cost.passes) == ("the answer has no tokens", 0)
        assert found.decision.is_uncertain


def test_an_answer_can_be_given_as_tokens():
    found = model().ground(tuple(b"Oslo"), [FACT])
    assert (found.answer, found.support) == ("Oslo", pytest.approx(16.0))


def test_sources_that_say_the_same_share_what_they_add():
    """Each carries the answer alone, and nothing is lost without it."""
    found = model(knowing(FACT)).ground("Oslo", [FACT, RAIN, f"As is known: {FACT}"])
    assert [one.alone for one in found.sources] == pytest.approx([19.6, 0.0, 19.6])
    assert [one.loss for one in found.sources] == pytest.approx([0.0, 0.0, 0.0])
    assert [one.contribution for one in found.sources] == pytest.approx([9.8, 0.0, 9.8])
    assert found.is_grounded and found.main == 0
    assert found.cost.passes == 8


def test_sources_that_say_something_only_together_share_what_they_add():
    """Neither adds anything alone, and all is lost without either."""

    def both(prompt: str) -> float:
        return -0.1 if OSLO in prompt and FACT in prompt else -5.0

    found = model(both).ground("Oslo", [OSLO, RAIN, FACT])
    assert [one.alone for one in found.sources] == pytest.approx([0.0, 0.0, 0.0])
    assert [one.contribution for one in found.sources] == pytest.approx([9.8, 0.0, 9.8])


def test_a_source_that_is_there_twice_is_scored_once_where_the_prompts_are_equal():
    found = model(knowing(FACT)).ground("Oslo", [FACT, FACT])
    assert found.cost.passes == 3  # both, one, none


def test_a_source_that_speaks_against_the_answer_takes_nothing_from_another():
    found = model(adding({FACT: 4.0, RAIN: -3.5})).ground("Oslo", [FACT, RAIN])
    assert [one.contribution for one in found.sources] == pytest.approx([16.0, -14.0])
    assert found.support == pytest.approx(16.0)


def test_an_empty_source_takes_no_place_and_contributes_nothing():
    found = model().ground("Oslo", ["", FACT])
    assert found.sources[0].contribution == 0.0
    assert found.cost.passes == 2


def test_sources_may_have_names():
    found = model().ground("Oslo", [Source(FACT, "atlas.pdf"), RAIN])
    assert [one.name for one in found.sources] == ["atlas.pdf", None]


def test_sources_that_do_not_fit_are_refused_before_any_pass_with_their_sizes():
    found = model()
    with pytest.raises(SourcesTooLongError, match="at most 4095 fit") as caught:
        found.ground("Oslo", ["a" * 1000, "b" * 3100], "?")
    assert caught.value.source_tokens == (1002, 3102)  # with what separates them
    assert found.backend.scored == []


def test_a_prompt_without_sources_needs_something_else_in_it():
    with pytest.raises(EmptyPromptError):
        model().ground("Oslo", [FACT], "", Grounding("{sources}"))


def test_what_it_costs_is_said():
    how = Grounding("{sources}|{question}")
    cost = model().ground("Oslo", ["aaaa", "bb"], "?", how).cost
    assert cost.passes == 4
    assert cost.prompt_tokens == 10 + 4 + 6 + 2  # both with what separates them, bb, aaaa, none
    assert cost.scored_tokens == 4 * 4
    assert cost.ratio == pytest.approx((22 + 16) / (10 + 4))
    assert cost.seconds > 0


def test_it_can_be_saved_as_json_and_read_again():
    for sources in ([], [FACT], [FACT, RAIN]):
        found = model(knowing(FACT)).ground(
            "Oslo", sources, "?", Grounding(on_not_grounded="abstain")
        )
        assert GroundedAnswer.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_unicode_of_all_kinds_is_scored():
    found = model().ground("東京 🙂", ["naïve 👩‍👩‍👧", "\u202eabc"], "Où?")
    assert "".join(found.tokens) == "東京 🙂"
    with pytest.raises(InvalidRequestError, match="lone surrogate"):
        model().ground("Oslo", ["\ud800"])


async def test_all_passes_of_an_answer_are_under_way_at_the_same_time():
    class Meeting(Reading):
        async def score_all(self, *arguments):
            async with asyncio.timeout(60):
                await barrier.wait()
            return await super().score_all(*arguments)

    barrier = asyncio.Barrier(8)
    found = await UncertaintyModel(Meeting(adding(WEIGHTS))).aground("Oslo", [RAIN, OSLO, FACT])
    assert found.cost.passes == 8


async def test_both_ways_return_the_same():
    def comparable(found):
        return found.to_dict() | {"cost": None}

    given = "Oslo", [RAIN, FACT, FACT], "?"
    awaited = await model(knowing(FACT)).aground(*given)
    assert comparable(awaited) == comparable(
        await asyncio.to_thread(model(knowing(FACT)).ground, *given)
    )


def test_a_backend_that_cannot_score_says_so():
    class Blind(ScriptedBackend):
        async def score_all(self, *arguments):
            raise MethodUnavailableError("it scores no given text")

    with pytest.raises(MethodUnavailableError, match="scores no given text"):
        UncertaintyModel(Blind(["Oslo"])).ground("Oslo", [FACT])


def test_rows_that_cannot_be_true_are_an_error_and_no_number():
    with pytest.raises(EvidenceError, match=r"logprob 1\.0"):
        model(lambda prompt: 1.0).ground("Oslo", [FACT])


def test_a_call_has_the_timeout_of_its_model():
    class Waiting(ScriptedBackend):
        async def score_all(self, *arguments):
            await asyncio.Event().wait()

    with pytest.raises(EngineTimeoutError):
        UncertaintyModel(Waiting(["Oslo"])).ground("Oslo", [FACT], timeout=0.01)


def test_a_closed_model_grounds_nothing():
    closed = model()
    closed.close()
    with pytest.raises(EngineClosedError):
        closed.ground("Oslo", [FACT])


@pytest.mark.parametrize("name", FAMILIES)
async def test_control_tokens_within_sources_and_questions_are_text(name):
    tokenizer = family(name)
    control = ControlTokens.of(tokenizer)
    backend, answer = Tokenizing(tokenizer), (5,)

    async def controls(text: str, chat: bool) -> list[int]:
        how = Grounding(chat_template=chat)
        passes = Ablations(backend, answer, as_sources([text, "b"]), text, how, {})
        await passes.prepare()
        prompts = passes.prompts.values()
        return sorted(one for ids in prompts for one in ids if one in control.ids.values())

    typed = " ".join(control.ids)
    for chat in (True, False):
        assert await controls(typed, chat) == await controls("a", chat)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({"prompt": "no place"}, "prompt"),
        ({"prompt": "{sources} {sources}"}, "prompt"),
        ({"prompt": "{sources} {question} {question}"}, "prompt"),
        ({"prompt": 3}, "prompt"),
        ({"least_support": float("nan")}, "least_support"),
        ({"least_support": 10**400}, "least_support"),
        ({"least_support": "3"}, "least_support"),
        ({"least_support": True}, "least_support"),
        ({"on_not_grounded": "shrug"}, "on_not_grounded"),
        ({"abstention_text": None}, "abstention_text"),
        ({"separator": None}, "separator"),
        ({"chat_template": "x"}, "chat_template"),
    ],
)
def test_an_option_that_can_never_work_is_refused_by_its_name(given, name):
    with pytest.raises(ConfigurationError, match=name):
        Grounding(**given)


@pytest.mark.parametrize(
    ("answer", "sources", "question"),
    [
        (None, [FACT], "?"),
        ("Oslo", FACT, "?"),
        ("Oslo", [3], "?"),
        ("Oslo", None, "?"),
        ("Oslo", [FACT], None),
        (("a",), [FACT], "?"),
    ],
)
def test_what_is_no_answer_source_or_question_is_refused(answer, sources, question):
    with pytest.raises(InvalidRequestError):
        model().ground(answer, sources, question)


def test_what_is_no_grounding_is_refused():
    with pytest.raises(ConfigurationError, match="it must be a Grounding"):
        model().ground("Oslo", [FACT], "?", {"least_support": 2})


texts = st.lists(st.sampled_from("abcdefgh"), max_size=5)
weights = st.fixed_dictionaries({one: st.floats(-1, 1) for one in "abcdefgh"})


@given(texts, weights, st.text("xyz", min_size=1, max_size=5))
def test_tokens_add_up_and_passes_are_bounded(sources, weighted, answer):
    named = {f"[{one}]": weight for one, weight in weighted.items()}
    found = model(adding(named)).ground(answer, [f"[{one}]" for one in sources])
    assert sum(found.by_token) == pytest.approx(found.logprob - found.logprob_without, abs=1e-9)
    for one in found.sources:
        assert sum(one.by_token) == pytest.approx(one.contribution, abs=1e-9)
        assert one.contribution == pytest.approx((one.alone + one.loss) / 2, abs=1e-9)
        assert one.alone <= -found.logprob_without + 1e-9
    assert found.cost.passes <= 2 * len(sources) + 2


PAIRS = list(combinations("abcd", 2))


@given(weights, st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_where_sources_interact_in_pairs_the_contributions_are_shapley_values(single, joint):
    """Against the mean over all orders in which the sources can come into the prompt."""

    def logprob(prompt: str) -> float:
        there = {one for one in "abcd" if f"[{one}]" in prompt}
        pairs = sum(one for pair, one in zip(PAIRS, joint, strict=True) if there >= set(pair))
        return -20 + sum(single[one] for one in there) + pairs

    def added(order: tuple[str, ...], one: str) -> float:
        before = "".join(f"[{other}]" for other in order[: order.index(one)])
        return logprob(before + f"[{one}]") - logprob(before)

    orders = list(permutations("abcd"))
    expected = [sum(added(order, one) for order in orders) / len(orders) for one in "abcd"]
    found = model(logprob).ground("x", [f"[{one}]" for one in "abcd"])
    assert [one.contribution for one in found.sources] == pytest.approx(expected, abs=1e-9)
    assert sum(expected) == pytest.approx(found.logprob - found.logprob_without, abs=1e-9)


@given(st.permutations("abcde"), weights)
def test_where_sources_add_up_their_order_changes_nothing(sources, weighted):
    named = {f"[{one}]": weight for one, weight in weighted.items()}
    found = model(adding(named)).ground("x", [f"[{one}]" for one in sources])
    own = [weighted[one] for one in sources]
    assert [one.contribution for one in found.sources] == pytest.approx(own, abs=1e-9)
    assert found.support == pytest.approx(max(own), abs=1e-9)
