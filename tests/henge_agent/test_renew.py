from __future__ import annotations

import random
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from henge_agent.renew import renew, settle_trial
from henge_agent.settings import Address
from henge_agent.state import State
from henge_protocol import pki
from henge_protocol.errors import Denied, HengeError, Unreachable, Untrusted
from tests.henge_agent.scripted import Scripted
from tests.henge_protocol.authorities import Fleet


async def renewed(state: State, scripted: Scripted) -> None:
    await renew(state, scripted.address, now=time.time, random=random.random)


def certificate_in(path: Path) -> bytes:
    pem = path.read_bytes()
    return pki.certificate_der(pem[pem.index(b"-----BEGIN CERTIFICATE-----") :][:2000].partition(b"-----BEGIN PRIV")[0])


async def test_the_new_identity_counts_once_it_has_been_used(joined: State, scripted: Scripted) -> None:
    await renewed(joined, scripted)

    membership = joined.membership
    assert membership is not None
    assert (membership.slot, membership.trial) == ("b", None)
    assert scripted.certificates == [certificate_in(joined.identity_file("b"))]
    assert membership.renew_at > time.time()
    assert joined.identity_file("a").exists()


async def test_renewing_twice_comes_back_to_the_first_slot(joined: State, scripted: Scripted) -> None:
    await renewed(joined, scripted)
    await renewed(joined, scripted)

    assert joined.membership is not None
    assert joined.membership.slot == "a"


async def test_a_refused_renewal_keeps_the_old_identity(joined: State, scripted: Scripted) -> None:
    before = joined.membership
    scripted.refuse = (403, "certificate_revoked")

    with pytest.raises(Denied) as refusal:
        await renewed(joined, scripted)

    assert refusal.value.code == "certificate_revoked"
    assert joined.membership == before


async def test_a_daemon_that_is_away_leaves_the_old_identity(joined: State) -> None:
    before = joined.membership

    with pytest.raises(Unreachable):
        await renew(joined, Address("127.0.0.1", 9), now=time.time, random=random.random)

    assert joined.membership == before


async def test_an_identity_for_another_key_is_not_kept(joined: State, scripted: Scripted) -> None:
    honest, other = scripted.issue, pki.make_csr(pki.generate_key(), "lamp-1")
    scripted.issue = lambda csr, name: honest(other, name)  # type: ignore[method-assign]

    with pytest.raises(Untrusted):
        await renewed(joined, scripted)

    assert not joined.identity_file("b").exists()


async def test_a_trial_that_was_cut_is_settled_at_the_next_start(
    tmp_path: Path, joined: State, scripted: Scripted, fleet: Fleet
) -> None:
    assert joined.membership is not None
    joined.write_identity("b", fleet.device_identity())
    joined.keep_membership(replace(joined.membership, trial="b"))
    joined.close()

    with closing(State(joined.folder)) as state:
        assert await settle_trial(state, scripted.address)
        assert state.membership is not None
        assert (state.membership.slot, state.membership.trial) == ("b", None)


async def test_a_trial_that_the_daemon_refuses_is_forgotten(joined: State, scripted: Scripted, fleet: Fleet) -> None:
    assert joined.membership is not None
    joined.write_identity("b", fleet.device_identity())
    joined.keep_membership(replace(joined.membership, trial="b"))
    scripted.refuse = (403, "unknown_certificate")

    assert not await settle_trial(joined, scripted.address)

    assert (joined.membership.slot, joined.membership.trial) == ("a", None)


async def test_a_trial_goes_on_while_there_is_no_verdict(joined: State, scripted: Scripted, fleet: Fleet) -> None:
    assert joined.membership is not None
    joined.write_identity("b", fleet.device_identity())
    joined.keep_membership(replace(joined.membership, trial="b"))
    scripted.refuse = (503, "stopping")

    with pytest.raises(HengeError):
        await settle_trial(joined, scripted.address)

    assert joined.membership.trial == "b"
