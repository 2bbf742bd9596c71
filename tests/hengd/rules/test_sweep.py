"""The sweep: what nobody should run goes, what anybody should run stays, whatever changes in between."""

from __future__ import annotations

import pytest

from hengd.records import Reported, pack
from hengd.rules import sweep as sweep_module
from hengd.rules.fleet import find_desired, find_document, required_object
from hengd.rules.sweep import Sweep
from tests.hengd.rules.conftest import Desk
from tests.service import device, schema


def _documents(desk: Desk) -> int:
    with desk.store.read() as tx:
        return tx.count("documents")


@pytest.fixture
async def many(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> Desk:
    """Seven lamps with a document each, and 21 that are not wanted any more; three records a step."""
    monkeypatch.setattr(sweep_module, "STEP", 3)
    await desk.apply(schema())
    for turn in range(4):
        await desk.apply(*(device(f"lamp-{number}", brightness=10 * turn + number) for number in range(7)))
    assert _documents(desk) == 28
    return desk


async def test_a_round_drops_what_nobody_should_run_and_nothing_else(many: Desk) -> None:
    sweep = Sweep(many.store)
    for _ in range(2):
        while await sweep.step():
            pass
        assert _documents(many) == 7
        assert [many.document(f"lamp-{number}")["brightness"] for number in range(7)] == list(range(30, 37))


async def test_one_step_drops_only_a_few(many: Desk) -> None:
    sweep, before = Sweep(many.store), 28
    while await sweep.step():
        assert before - 3 <= _documents(many)
        before = _documents(many)


async def test_a_change_ends_the_round_and_a_document_wanted_again_stays(many: Desk) -> None:
    sweep = Sweep(many.store)
    for _ in range(3):  # all devices are asked
        assert await sweep.step()
    await many.apply(*(device(f"lamp-{number}", brightness=number) for number in range(7)))
    assert not await sweep.step()
    assert _documents(many) == 28
    while await sweep.step():
        pass
    assert [many.document(f"lamp-{number}")["brightness"] for number in range(7)] == list(range(7))
    assert _documents(many) == 7


async def test_what_comes_after_the_change_is_swept_in_the_next_round(many: Desk) -> None:
    sweep = Sweep(many.store)
    rounds = 0
    while _documents(many) > 9:
        rounds += 1
        assert rounds < 20
        for _ in range(5):
            await sweep.step()
        await many.apply(device("lamp-0", brightness=rounds % 2))
    assert many.document("lamp-0")["brightness"] == rounds % 2


@pytest.mark.parametrize("running", ["", "no digest", "ab" * 32])
async def test_what_a_device_runs_stays_whatever_others_say_that_they_run(many: Desk, running: str) -> None:
    with many.store.read() as tx:
        ids = [required_object(tx, "Device", f"lamp-{number}").id for number in (0, 1)]
        old = find_desired(tx, ids[0])
    assert old is not None
    await many.store.write(lambda tx: tx.put("reported", ids[0].encode(), pack(Reported(running=old.digest))))
    await many.store.write(lambda tx: tx.put("reported", ids[1].encode(), pack(Reported(running=running))))
    await many.apply(device("lamp-0", brightness=99))
    sweep = Sweep(many.store)
    while await sweep.step():
        pass

    assert _documents(many) == 8
    with many.store.read() as tx:
        assert find_document(tx, old.digest) is not None
