"""Who is connected: counted per device, whatever comes and goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hengd.rules.presence import Presence


def test_the_first_arrival_and_the_last_leaving_are_news() -> None:
    presence = Presence()
    assert presence.arrive("a", "10.0.0.1", now=1.0)
    assert not presence.arrive("a", "10.0.0.2", now=2.0)
    live = presence.find("a")
    assert live is not None
    assert (live.since, live.address, live.links) == (1.0, "10.0.0.2", 2)
    assert not presence.leave("a", now=9.0)
    assert presence.leave("a", now=9.0)
    assert presence.find("a") is None


def test_leaving_twice_is_no_news() -> None:
    presence = Presence()
    assert not presence.leave("never", now=9.0)
    presence.arrive("a", "", now=1.0)
    assert presence.leave("a", now=9.0)
    assert not presence.leave("a", now=9.0)


def test_who_left_is_remembered_until_it_comes_back() -> None:
    presence = Presence()
    assert presence.left("a") == 0.0
    presence.arrive("a", "", now=1.0)
    presence.arrive("a", "", now=2.0)
    presence.leave("a", now=3.0)
    assert presence.left("a") == 0.0
    presence.leave("a", now=4.0)
    assert presence.left("a") == 4.0
    presence.arrive("a", "", now=5.0)
    assert presence.left("a") == 0.0


def test_the_last_contact_of_those_who_are_here_is_now() -> None:
    presence = Presence()
    presence.arrive("gone", "", now=1.0)
    presence.leave("gone", now=2.0)
    presence.arrive("here", "", now=1.0)

    assert presence.contacts(now=9.0) == {"gone": 2.0, "here": 9.0}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans())))
def test_a_device_is_live_while_more_arrived_than_left(steps: list[tuple[str, bool]]) -> None:
    presence, counts = Presence(), dict.fromkeys("abc", 0)
    for device, arrives in steps:
        before = counts[device]
        if arrives:
            counts[device] += 1
            assert presence.arrive(device, "", now=0.0) == (before == 0)
        else:
            counts[device] = max(0, before - 1)
            assert presence.leave(device, now=9.0) == (before == 1)
        assert (presence.find(device) is not None) == (counts[device] > 0)
    assert len(presence) == sum(count > 0 for count in counts.values())
