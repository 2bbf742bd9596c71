"""Looking selectors up by labels finds exactly what trying all of them finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hengd.rules.selection import Selection
from henge_protocol.selector import Selector, Term, parse_selector
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


def test_selectors_that_name_another_value_are_not_tried() -> None:
    tried: list[str] = []

    class Noting(Selector):
        def matches(self, labels: object) -> bool:
            tried.append(str(self.terms))
            return True

    entries = [(Noting(parse_selector(f"room={number}").terms), number) for number in range(100)]
    found = Selection(entries).matching({"room": "7", "floor": "1"})

    assert (found, len(tried)) == ([7], 1)


async def test_a_group_for_each_device_reaches_that_device(desk: Desk) -> None:
    names = [f"lamp-{number}" for number in range(300)]
    await desk.apply(schema(), *[device(name, labels={"id": name}) for name in names])
    await desk.apply(*[group(name, f"id={name}", brightness=number % 100) for number, name in enumerate(names)])

    assert [desk.document(name)["brightness"] for name in names] == [number % 100 for number in range(300)]
