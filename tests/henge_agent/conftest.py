from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from henge_agent.records import Membership
from henge_agent.state import State
from tests.henge_agent.scripted import Scripted, serving
from tests.henge_protocol.authorities import DEVICE, FLEET, Fleet


@pytest.fixture(scope="session")
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture
async def scripted(fleet: Fleet) -> AsyncIterator[Scripted]:
    async with serving(Scripted(fleet)) as scripted:
        yield scripted


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    with closing(State(tmp_path / "state")) as opened:
        yield opened


@pytest.fixture
def joined(state: State, fleet: Fleet) -> State:
    """A state folder of a device that has joined, without an address."""
    state.write_identity("a", fleet.device_identity())
    state.keep_membership(
        Membership(
            fleet_id=FLEET,
            device_id=DEVICE,
            name="lamp-1",
            server_ca_ders=(fleet.server_ca.certificate_der,),
            slot="a",
            renew_at=2**37,
        )
    )
    return state
