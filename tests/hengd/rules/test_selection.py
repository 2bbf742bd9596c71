"""Looking selectors up by labels finds exactly what trying all of them finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hengd.rules.selection import Selection
from henge_protocol.selector import Selector, Term, parse_selector
from tests.effort import no_blow_up
from tests.hengd.rules.conftest import Desk
from tests.service import device, group, schema

KEYS, VALUES = st.sampled_from("abc"), st.sampled_from(["", "x", "y", "z"])
TERMS = st.builds(
    Term, KEYS, st.sampled_from(["in", "notin", "exists", "absent"]), st.frozensets(VALUES, min_size=1, max_size=3)
)
SELECTORS = st.builds(Selector, st.lists(TERMS, max_size=3).map(tuple))


@given(st.lists(SELECTORS, max_size=8), st.dictionaries(KEYS, VALUES))
def test_it_finds_what_trying_all_finds(selectors: list[Selector], labels: dict[str, str]) -> None:
    selection = Selection((selector, place) for place, selector in enumerate(selectors))
    expected = [place for place, selector in enumerate(selectors) if selector.matches(labels)]

    assert selection.matching(labels) == expected
    assert selection.is_matched(labels) == bool(expected)


def test_many_long_selectors_are_not_tried_one_by_one() -> None:
    """Trying each would be 4,000 groups of 60 terms on 4,000 devices: some ten minutes of processor time."""
    terms = ",".join(f"k{number}!=x" for number in range(59))
    selection = Selection((parse_selector(f"{terms},room=r{place}"), place) for place in range(4000))
    labels = {f"k{number}": "y" for number in range(31)}
    with no_blow_up():
        found = [selection.matching({**labels, "room": f"r{place}"}) for place in range(4000)]

    assert found == [[place] for place in range(4000)]


async def test_a_group_for_each_device_reaches_that_device(desk: Desk) -> None:
    names = [f"lamp-{number}" for number in range(300)]
    await desk.apply(schema(), *[device(name, labels={"id": name}) for name in names])
    await desk.apply(*[group(name, f"id={name}", brightness=number % 100) for number, name in enumerate(names)])

    assert [desk.document(name)["brightness"] for name in names] == [number % 100 for number in range(300)]


async def test_many_groups_in_one_change_read_the_fleet_once(desk: Desk) -> None:
    """Each reading all devices would be minutes."""
    names = [f"lamp-{number}" for number in range(1000)]
    await desk.apply(schema(), *[device(name) for name in names])
    groups = [group(f"g-{number}", f"room=r{number}", brightness=1) for number in range(2000)]
    with no_blow_up():
        outcome = await desk.apply(*groups)

    assert len(outcome.objects) == 2000
