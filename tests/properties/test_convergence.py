"""Whatever the link does and whoever changes what: after some quiet, the device runs what was asked for and said so."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from henge_protocol.model import digest_of
from tests.properties.link import DaemonSide, DeviceSide, World

QUIET_S = 600.0
"""More than every deadline on the way: an overdue delivery, a lost bell, a passing refusal."""

documents = st.sampled_from([b'{"color":"red"}', b'{"color":"green"}', b'{"color":"blue"}', b'{"color":"white"}'])
steps = st.one_of(
    st.tuples(st.just("change"), documents, st.booleans()),
    st.tuples(st.just("cut"), st.none(), st.none()),
    st.tuples(st.just("reboot"), st.none(), st.none()),
    st.tuples(st.just("breaks"), st.floats(1, 60), st.none()),
    st.tuples(st.just("wait"), st.floats(0, 90), st.none()),
)


def played(
    seed: int, loss: float, program: list[tuple[str, object, object]], bad: bytes | None
) -> tuple[DaemonSide, DeviceSide]:
    """Play a program of happenings, then let it be quiet on a good link."""
    world = World(seed)
    daemon, present_loss = DaemonSide(world), [loss]
    device = DeviceSide(world, daemon, loss=lambda: present_loss[0])
    device.bad = {digest_of(bad)} if bad is not None else set()
    device.connect()
    for what, detail, ring in program:
        world.run_until(world.now + world.random.uniform(0, 3))
        if what == "change":
            daemon.change(detail, ring=bool(ring))  # type: ignore[arg-type]
        elif what == "cut" and device.wire is not None:
            device.wire.cut()
        elif what == "reboot":
            device.reboot()
        elif what == "breaks":
            device.broken_until = world.now + detail  # type: ignore[operator]
        elif what == "wait":
            world.run_until(world.now + detail)  # type: ignore[operator]
    present_loss[0] = 0.0
    if device.wire is not None:
        device.wire.cut()
    world.run_until(world.now + QUIET_S)
    return daemon, device


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.05, 0.3]), st.lists(steps, max_size=25))
def test_after_quiet_what_is_reported_is_what_is_desired(
    seed: int, loss: float, program: list[tuple[str, object, object]]
) -> None:
    daemon, device = played(seed, loss, program, None)
    if daemon.desired is None:
        assert device.running is None
        return
    assert device.running is not None
    assert device.running.digest == daemon.desired.digest == daemon.reported.running
    assert daemon.state == "in-sync"


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([0.0, 0.1]), st.lists(steps, max_size=25), documents)
def test_a_document_that_the_device_refuses_is_quarantined_and_never_runs(
    seed: int, loss: float, program: list[tuple[str, object, object]], bad: bytes
) -> None:
    daemon, device = played(seed, loss, program, bad)
    digest = digest_of(bad)
    assert digest not in device.history
    if daemon.desired is None:
        return
    if daemon.desired.digest == digest:
        assert daemon.state == "quarantined"
    else:
        assert device.running is not None
        assert device.running.digest == daemon.desired.digest
        assert daemon.state == "in-sync"
