"""Which of many servers gets a request, by properties."""

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uq_llm_integrations import ConfigurationError
from uq_llm_integrations.backends.server.routing import LOAD, Servers, prefix_key

KEYS = [prefix_key((number, number * 7)) for number in range(600)]


def urls(count: int) -> list[str]:
    return [f"http://server-{number}:8000" for number in range(count)]


def homes(servers: Servers) -> dict[bytes, str]:
    return {key: servers.pick(key).url for key in KEYS}


@given(st.integers(1, 12))
def test_a_server_more_moves_only_its_own_share(count):
    before, after = homes(Servers(urls(count))), homes(Servers(urls(count + 1)))
    moved = [key for key in KEYS if before[key] != after[key]]
    assert {after[key] for key in moved} <= {urls(count + 1)[-1]}
    share = len(KEYS) / (count + 1)
    assert abs(len(moved) - share) < 6 * math.sqrt(share)


@given(st.integers(2, 12))
def test_keys_are_spread_evenly(count):
    found = Counter(homes(Servers(urls(count))).values())
    share = len(KEYS) / count
    assert all(abs(found[url] - share) < 6 * math.sqrt(share) for url in urls(count))


@given(st.permutations(urls(5)))
def test_the_order_of_addresses_makes_no_difference(order):
    assert homes(Servers(order)) == homes(Servers(urls(5)))


@given(st.lists(st.sampled_from(KEYS[:3]), min_size=1, max_size=200), st.integers(2, 8))
def test_no_server_has_much_more_than_its_share(keys, count):
    servers = Servers(urls(count))
    for total, key in enumerate(keys, 1):
        servers.pick(key).in_flight += 1
        assert max(one.in_flight for one in servers.all) <= math.ceil(LOAD * total / count)


def test_prompts_that_begin_with_the_same_block_belong_together():
    block = tuple(range(16))
    assert prefix_key((*block, 1)) == prefix_key((*block, 2, 3)) != prefix_key((*block[1:], 1))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_pause_grows_with_failures_in_a_row_and_not_with_those_at_once():
    clock = Clock()
    servers = Servers(urls(1), clock)
    (server,) = servers.all
    pauses = []
    for _ in range(9):
        for _ in range(50):
            servers.note_failure(server, None)
        pauses.append(server.away_until - clock.now)
        clock.now = server.away_until
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


@given(st.integers(1, 60))
def test_one_that_failed_is_set_aside_and_tried_again(failures):
    clock = Clock()
    servers = Servers(urls(3), clock)
    first = servers.pick(b"key")
    for _ in range(failures):
        servers.note_failure(first, None)
    assert servers.pick(b"key") is not first
    clock.now = 30.0
    assert servers.pick(b"key") is first
    servers.note_success(first)
    servers.note_failure(first, None)
    clock.now += 0.5
    assert servers.pick(b"key") is first


def test_one_that_said_when_to_come_back_is_not_tried_before():
    clock = Clock()
    servers = Servers(urls(1), clock)
    servers.note_failure(servers.all[0], 5.0)
    assert servers.pick(b"key") is None and servers.wait_seconds() == 5.0
    clock.now = 5.0
    assert servers.pick(b"key") is servers.all[0] and servers.wait_seconds() is None


def test_all_that_failed_are_tried_nevertheless():
    servers = Servers(urls(2), Clock())
    for one in servers.all:
        servers.note_failure(one, None)
    first = servers.pick(b"key")
    assert {first, servers.pick(b"key", [first])} == set(servers.all)
    assert servers.pick(b"key", servers.all) is None


def test_only_known_servers_can_be_named():
    with pytest.raises(ConfigurationError, match="server-0:8000"):
        Servers(urls(1)).named("http://other")
