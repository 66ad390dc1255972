"""One reader of verbal confidence, for all methods that ask for it or look for it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.methods.helpers import add_scores, request, scored, values
from tests.methods.test_prompting import Wordy
from uq_llm_integrations import ConfigurationError, EvidenceError, MethodOptions, ScriptedBackend
from uq_llm_integrations.methods.hedging import HEDGES, hedged_confidence
from uq_llm_integrations.methods.verbal_confidence import replied_confidence, stated_confidence

REPLIES = [
    # Numbers from 0 to 1.
    ("0.9", 0.9), (".9", 0.9), ("0", 0.0), ("1", 1.0), ("1.0", 1.0), ("0.9.", 0.9), ("1e-1", 0.1),
    ("9E-1", 0.9), ("Confidence: 0.4", 0.4), ("My confidence is 0.85", 0.85), ("~0.7", 0.7),
    ("about 0.7", 0.7), ("It is 0.9 likely", 0.9), ("0.9\n\nQuestion: x\nConfidence: 0.3", 0.9),
    ("0.9 (based on 3 sources)", 0.9), ("0.85 - Oslo since 1814", 0.85), ("0.9 in 2020", 0.9),
    # Decimal commas, and digits and signs of other scripts.
    ("0,8", 0.8), ("0,85.", 0.85), ("٠٫٩", 0.9), ("९०%", 0.9), ("９０％", 0.9), ("٩٠٪", 0.9),
    ("信心0.9", 0.9), ("我确定，0.9", 0.9), ("0·9", 0.9), ("０．９", 0.9),
    # Percent.
    ("10%", 0.1), ("90%", 0.9), ("100 %", 1.0), ("0%", 0.0), ("99.5%", 0.995), ("90 percent", 0.9),
    ("I am 90 percent sure", 0.9), ("90 per cent", 0.9), ("ninety percent", 0.9),
    ("ninety-five per cent", 0.95), ("one hundred percent", 1.0), ("90% (0.9)", 0.9),
    ("10% likely", 0.1), ("80 % confident", 0.8), ("90% chance", 0.9), ("roughly 70%", 0.7),
    # Shares and scales.
    ("1/10", 0.1), ("8/10", 0.8), ("8 / 10", 0.8), ("10/10", 1.0), ("0/10", 0.0), ("8,5/10", 0.85),
    ("0.9/1", 0.9), ("0.9 out of 1", 0.9), ("8 out of 10", 0.8), ("nine out of ten", 0.9),
    ("one in ten", 0.1), ("1 in 10", 0.1), ("1 (out of 10)", 0.1), ("3/4", 0.75), ("½", 0.5),
    ("80/100", 0.8), ("50/50", 0.5), ("50-50", 0.5), ("fifty-fifty", 0.5),
    ("On a scale from 0 to 10, 8", 0.8), ("8 on a scale of 10", 0.8),
    ("Confidence (0-1): 0.8", 0.8), ("Confidence level (0-100): 90", 0.9),
    # Ranges, by their middle.
    ("between 0.6 and 0.8", 0.7), ("0.6-0.8", 0.7), ("0.6 – 0.8", 0.7), ("60-80%", 0.7),
    ("60% to 80%", 0.7), ("from 0.2 to 0.4", 0.3),
    # Markup.
    ("**0.9**", 0.9), ("<confidence>0.9</confidence>", 0.9), ('{"confidence": 0.9}', 0.9),
    ("$0.9$", 0.9), ("`0.9`", 0.9), ("1. I am 90% sure", 0.9),
    # Words.
    ("likely", 0.7), ("Unlikely.", 0.2), ("very unlikely", 0.1), ("highly unlikely", 0.05),
    ("very likely", 0.85), ("not likely", 0.2), ("it isn't likely", 0.2), ("probably not", 0.2),
    ("not certain", 0.2), ("I'm not sure", 0.2), ("I don’t know", 0.0), ("I do not know", 0.0),
    ("almost no chance", 0.02), ("unlikely (10%)", 0.1), ("Unlikely, 10%", 0.1),
    # Denials.
    ("I am not 90 percent sure.", None), ("I'm not 100% sure", None), ("not 0.9", None),
    ("90% sure that it is wrong", None), ("very likely wrong", None), ("uncertainty: 0.9", None),
    ("uncertainty (0-1): 0.9", None), ("hardly likely", None), ("not unlikely", None),
    ("far from likely", None), ("anything but likely", None), ("Probability of error: 0.1", None),
    ("less likely", None), ("more likely than not", None),
    # Questions, and bounds.
    ("How likely is it?", None), ("Is it likely?", None), ("0.9?", None), ("at least 90%", None),
    ("more than 0.9", None), ("less than 10%", None), ("> 0.9", None), ("90%+", None),
    ("over 90%", None), ("0.9 or more", None),
    # Contradictions.
    ("0.9 or 0.8", None), ("0.9, 0.8", None), ("unlikely, 90%", None), ("likely, 10%", None),
    ("likely but unlikely", None), ("60/40", None), ("0.8 to 0.6", None), ("0.9 ± 0.1", None),
    # Numbers of no known scale.
    ("90", None), ("8", None), ("1.5", None), ("-0.5", None), ("110%", None), ("11/10", None),
    ("5/0", None), ("12/25/2020", None), ("1.2.3", None), ("v0.9", None), ("0.9x", None),
    ("top-1", None), ("10²", None), ("1e999", None), ("between 0 and 1", None), ("2 rivers", None),
    ("1 of them", None), ("1. Paris", None), ("#1", None), ("No. 1", None),
    ("0..5", None), ("1.e-1", None), ("40/60", None), ("3 to 1", None), ("9:1", None),
    ("8 on a scale of 1 to 10", None),
    # Nothing.
    ("", None), ("yes", None), ("no idea", None), ("certain", None), ("NaN", None), ("inf", None),
    ("百分之九十", None),
]  # fmt: skip  # a table

ANSWERS = [
    ("Oslo. Confidence: 0.4", 0.4), ("Oslo has 700,000 people. Confidence: 0,8", 0.8),
    ("Oslo. Confidence: 1/10", 0.1), ("Oslo. Confidence: 10%", 0.1), ("Oslo, 0.9 confidence", 0.9),
    ("Confidence: 90%. Population: 700000", 0.9), ("Confidence: 1. Oslo has 3 rivers.", 1.0),
    ("Oslo. I am 90% sure.", 0.9), ("Oslo (confidence 0.7)", 0.7), ("Certainty: 8/10", 0.8),
    ("I'm 70% certain it is Oslo, 30% that it is Bergen", 0.7), ("Confidence: high (0.9)", 0.9),
    ("Oslo. Confidence: 0.4\nOverall confidence: 40%", 0.4), ("Confidence: very likely", 0.85),
    ("Confidence: between 0.6 and 0.8", 0.7),
    ("Oslo. Confidence: 0.4\nConfidence: 0.9", None), ("I am not 90% sure it is Oslo", None),
    ("Lack of confidence: 0.9", None), ("The 95% confidence interval is [0.2, 0.4]", None),
    ("I am confident that Oslo has 2 rivers", None), ("The probability of heads is 0.5", None),
    ("Oslo has 1 river", None), ("Sure, 1 river", None), ("Confidence: n/a", None),
    ("Probably Oslo", None), ("Oslo", None),
]  # fmt: skip  # a table

HEDGED = [
    ("Unlikely Oslo", 0.2), ("It is very unlikely.", 0.1), ("Probably Oslo.", 0.7),
    ("Almost certainly Oslo", 0.95), ("It's not likely", 0.2), ("I DON'T KNOW", 0.0),
    ("Probably Oslo, though Bergen is unlikely", None), ("I can't say it's likely", None),
    ("The likelihood is large", None), ("How likely is that?", None), ("Oslo", None),
]  # fmt: skip  # a table


def expected(confidence):
    return [None if confidence is None else pytest.approx(1 - confidence)]


@pytest.mark.parametrize(("reply", "confidence"), REPLIES)
async def test_what_a_reply_to_the_question_for_a_confidence_states(reply, confidence):
    candidates = await ScriptedBackend(["Oslo"]).generate(request())
    result = await add_scores(candidates, ["verbalized_2s"], Wordy([reply or " "]))
    assert values(result, "verbalized_2s") == expected(confidence)
    assert confidence is not None or result.score("verbalized_2s").reason


@pytest.mark.parametrize(("answer", "confidence"), ANSWERS)
async def test_what_an_answer_states_of_itself(answer, confidence):
    result = await scored(None, "verbalized_1s", backend=Wordy([answer]))
    assert values(result, "verbalized_1s") == expected(confidence)


@pytest.mark.parametrize(("answer", "confidence"), HEDGED)
async def test_what_the_words_of_an_answer_stand_for(answer, confidence):
    result = await scored([answer], "linguistic")
    assert values(result, "linguistic") == expected(confidence)


@pytest.mark.parametrize(
    ("reply", "why"),
    [
        ("not 90% sure", "no confidence can be read from 'not 90% sure' for certain"),
        ("0.9 or 0.8", "the text contradicts itself: '0.9 or 0.8'"),
        ("yes", "the text says nothing of the kind"),
    ],
)
async def test_what_cannot_be_read_has_the_reason(reply, why):
    candidates = await ScriptedBackend(["Oslo"]).generate(request())
    result = await add_scores(candidates, ["verbalized_2s"], Wordy([reply]))
    assert result.score("verbalized_2s").reason == why


async def test_a_number_at_which_a_reply_was_cut_is_not_known_to_be_whole():
    """A token of the scripted backend is a byte, and a reply has ten."""
    candidates = await ScriptedBackend(["Oslo"]).generate(request())
    cut, whole = [
        await add_scores(candidates, ["verbalized_2s"], ScriptedBackend([reply]))
        for reply in ("maybe, 0.15", "0.9 indeed, I say")
    ]
    assert values(cut, "verbalized_2s") == [None]
    assert values(whole, "verbalized_2s") == [pytest.approx(0.1)]


async def test_expressions_of_the_callers_own_count_in_whole_words_and_the_longest_first():
    hedges = {"sure": 0.9, "not so sure": 0.3, "たぶん": 0.6, "unsure": 0.1}
    script = ["Sure!", "I am not so sure", "たぶん東京", "unsure", "surely"]
    result = await scored(script, "linguistic", n=5, hedges=hedges)
    found = [None if one is None else round(1 - one, 3) for one in values(result, "linguistic")]
    assert found == [0.9, 0.3, 0.6, 0.1, None]


async def test_a_pattern_of_the_callers_own_says_where_and_the_reader_what():
    script = ["p=80%", "p=likely", "p=8", "q=0.3"]
    result = await scored(script, "verbalized_1s", n=4, stated_confidence=r"p=(\S+)")
    found = [None if one is None else round(1 - one, 3) for one in values(result, "verbalized_1s")]
    assert found == [0.8, 0.7, None, None]


@pytest.mark.parametrize("hedges", [{"likely": 7}, {"likely": "0.7"}, {"": 0.5}, {"?": 0.5}])
def test_expressions_that_stand_for_no_confidence_are_refused(hedges):
    with pytest.raises(ConfigurationError, match="hedges"):
        MethodOptions(hedges=hedges)


@given(st.integers(0, 100), st.sampled_from(["{}%", "{} percent", "I am {} % sure.", "{}/100"]))
def test_percent_in_any_wording(number, wording):
    assert replied_confidence(wording.format(number), HEDGES) == pytest.approx(number / 100)


@given(st.text(alphabet="01 9.,%/-()aelnoty:?\n"))
def test_whatever_is_read_is_a_confidence_or_a_reason(text):
    for read in (replied_confidence, stated_confidence, hedged_confidence):
        try:
            assert 0.0 <= read(text, HEDGES) <= 1.0
        except EvidenceError as error:
            assert str(error)
