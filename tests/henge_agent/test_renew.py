from __future__ import annotations

import random
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from henge_agent.renew import LOOK_S, Due, renew, settle_trial
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


class Moments:
    """Both clocks and chance, for ``Due``."""

    def __init__(self) -> None:
        self.wall, self.steady, self.chance = 1e9, 0.0, 0.5

    def due(self) -> Due:
        return Due(now=lambda: self.wall, clock=lambda: self.steady, random=lambda: self.chance)

    def advance(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def moments() -> Moments:
    return Moments()


NEVER = 2**37


def test_nobody_is_due_before_its_time_and_looks_at_the_clock_every_hour(moments: Moments) -> None:
    due = moments.due()

    assert [due.left_s(1e9 + 60), due.left_s(1e9), due.left_s(NEVER)] == [60, 0, LOOK_S]
    moments.wall += 1e6
    assert due.left_s(1e9 + 1e6) == 0, "a clock that was put right counts at the next look"


def test_who_is_asked_is_due_at_a_random_moment_within_the_time(moments: Moments) -> None:
    lefts = []
    for moments.chance in (0.0, 0.25, 0.999):
        due = moments.due()
        due.ask(1000)
        lefts.append(due.left_s(NEVER))

    assert lefts == [0, 250, 999]


def test_asking_again_moves_the_moment_nearer_and_never_away(moments: Moments) -> None:
    due = moments.due()
    for moments.chance in (0.5, 0.9, 0.1, 0.8):
        due.ask(1000)

    assert due.left_s(NEVER) == 100


def test_who_is_due_before_the_moment_asked_for_keeps_its_own_time(moments: Moments) -> None:
    due = moments.due()
    due.ask(1000)

    assert due.left_s(1e9 + 20) == 20


def test_a_clock_on_the_wall_that_jumps_does_not_move_what_was_asked(moments: Moments) -> None:
    due = moments.due()
    due.ask(1000)
    moments.wall -= 1e8
    moments.advance(400)

    assert due.left_s(NEVER) == 100


def test_a_failure_puts_off_even_who_is_due_and_asking_again_counts(moments: Moments) -> None:
    due = moments.due()
    due.ask(0)
    due.put_off(5000)
    assert due.left_s(1.0) == 5000
    due.ask(1000)
    assert due.left_s(1.0) == 500


def test_what_was_asked_or_failed_before_a_renewal_is_over(moments: Moments) -> None:
    due = moments.due()
    due.put_off(50)
    due.ask(10)
    due.done()

    assert due.left_s(1e9 + 77) == 77
