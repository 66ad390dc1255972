"""When two texts count as the same answer."""

import unicodedata
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uq_llm_integrations import (
    Request,
    ScriptedBackend,
    SelfConsistency,
    normalised_answer,
    squad_answer,
)
from uq_llm_integrations.backends.metering import MeteredBackend
from uq_llm_integrations.strategies.base import run_strategy

SAME = [
    ("Paris", "paris."), ("Paris", "  PARIS!\n"), ("Paris", "“Paris”"), ("Paris", "**Paris**"),
    ("Paris", "(Paris)"), ("New  York", "new\nyork"), ("New\u00a0York", "New York"),
    ("Straße", "STRASSE"), ("Caf\u00e9", "Cafe\u0301"), ("Ｐａｒｉｓ", "Paris"), ("ﾊﾞｽ", "バス"),
    ("はい", "はい。"), ("「東京」", "東京"), ("Москва", "МОСКВА."), ("Ναί", "ναί;"),
    ("نعم", "نعم؟"), ("हाँ", "हाँ।"), ("¿Madrid?", "Madrid"), ("A", "A."), ("A", "`a`"),
    ("5", "5.0"), ("5", "+5"), ("5", "5."), ("1,000", "1000"), ("1,234.50", "1234.5"),
    ("1.234.567", "1234567"), ("12,34,567", "1234567"), ("1'000", "1000"), ("1\u202f000", "1000"),
    ("0,8", "0.8"), (".5", "0.50"), ("1e3", "1000"), ("-5", "\u22125"), ("0", "-0.0"),
    ("\u0663\u066b\u0661\u0664", "3.14"), ("１０", "10"), ("50%", "50.0 %"), ("$1,000", "$1000.00"),
]  # fmt: skip  # a table
DIFFERENT = [
    ("-5", "5"), ("3.14", "3 14"), ("3.14", "314"), ("C++", "C#"), ("C", "C#"), ("C", "C++"),
    ("x < 3", "x > 3"), ("x", "-x"), ("A", ""), ("The", ""), ("バス", "ハス"), ("が", "か"),
    ("Café", "Cafe"), ("año", "ano"), ("1/2", "12"), ("1:2", "12"), ("10²", "102"), ("x²", "x2"),
    ("H2O", "H₂O²"), ("5!", "5"), ("n!", "n"), ("5%", "5"), ("$5", "5"), ("$5", "€5"),
    ("1.5", "15"), ("1,5", "15"), ("007", "7"), ("3.10.1", "3.1.1"), ("a b", "ab"), ("a-b", "a b"),
    ("[0, 1)", "(0, 1]"), ("(0, 1)", "0, 1"), ("?", "!"), ("...", ""), ("'", '"'), (".NET", "NET"),
    ("¬p", "p"), ("!x", "x"), ("🙂", "🙁"), ("👍", ""), ("a/b", "ab"), ("it's", "its"),
    ("Answer:\n5", "Answer:\n6"), ("5'", '5"'), ("x'", "x"), ("f(x)", "fx"), ("1e400", "1e401"),
    ("1" * 40, "1" * 39 + "2"), ("un", "one"), ("Python 3.10", "Python 3.1"), ("A", "The A"),
    ("中国", "中國"), ("😀😀", "😀"), ("🏴\U000e0067\U000e007f", "🏴"), ("I", "ı"),
]  # fmt: skip  # a table


@pytest.mark.parametrize(("one", "other"), SAME)
def test_what_makes_no_difference(one, other):
    assert normalised_answer(one) == normalised_answer(other)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_what_makes_a_difference(one, other):
    assert normalised_answer(one) != normalised_answer(other)


@given(st.decimals(allow_nan=False, allow_infinity=False), st.integers(0, 3))
def test_a_number_is_the_same_however_it_is_written(number, zeros):
    exponent = number.as_tuple().exponent
    if not -40 < exponent < 40:
        return
    written = f"{number:f}"
    longer = f"{written}{'' if '.' in written else '.'}{'0' * (zeros + 1)}"
    assert normalised_answer(longer) == normalised_answer(written)


@given(*[st.decimals(-(10**9), 10**9, places=4)] * 2)
def test_different_numbers_are_different_answers(one, other):
    assert (normalised_answer(str(one)) == normalised_answer(str(other))) == (one == other)


@given(st.text())
def test_any_text_is_an_answer_in_each_of_its_unicode_forms(text):
    answer = normalised_answer(text)
    assert bool(answer) == bool(text.strip().strip("\u200b\u200e\u200f\u2060\u061c\ufeff").strip())
    assert normalised_answer(f" {unicodedata.normalize('NFD', text)}\n") == normalised_answer(
        unicodedata.normalize("NFC", text)
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [("The cat.", "cat"), ("-5", "5"), ("a", ""), ("U.S.", "us"), ("An  apple", "apple!")],
)
def test_squads_rule_drops_what_squad_drops(one, other):
    assert squad_answer(one) == squad_answer(other)


@pytest.mark.parametrize("text", ["Café", "x² > 3", "バス"])
def test_squads_rule_keeps_what_squad_keeps(text):
    assert squad_answer(text).replace(" ", "") == text.lower().replace(" ", "").replace(">", "")


async def test_a_vote_counts_what_is_different_apart_unless_told_otherwise():
    lines = ["-5", "5", "5.0", "five"]
    for answer, winner in ((normalised_answer, "5"), (squad_answer, "-5")):
        strategy = SelfConsistency(4, answer, settle=None)
        request = Request((63,), sampling={"temperature": 1.0, "max_tokens": 9})
        result = await run_strategy(strategy, request, MeteredBackend(ScriptedBackend(lines)))
        same = [one.text for one in result.candidates if answer(one.text) == answer(winner)]
        assert result.text in same and len(same) == 2


def test_a_long_number_is_exact():
    assert normalised_answer("1" * 5000 + ".0") == "1" * 5000
    assert Decimal(normalised_answer("1e300")) == Decimal("1e300")
