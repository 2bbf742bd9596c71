"""Events: numbered without gaps, the newest kept, listeners woken."""

from __future__ import annotations

import asyncio

from hengd.events import KEPT, EventLog


def told(log: EventLog, count: int) -> None:
    for number in range(count):
        log.add(float(number), "object.changed", "Device", f"lamp-{number}", revision=number)


def test_events_are_numbered_from_one_and_read_after_a_number() -> None:
    log = EventLog()
    assert (log.seq, log.since(0)) == (0, ([], False))
    told(log, 3)
    events, gap = log.since(1)
    assert ([event.seq for event in events], gap) == ([2, 3], False)
    assert events[0].detail == {"revision": 1}
    assert log.since(3) == ([], False)


def test_a_log_that_starts_later_takes_an_older_number_for_a_gap() -> None:
    log = EventLog(start=5000)
    assert log.seq == 5000
    told(log, 1)
    assert log.since(5000)[1] is False
    assert log.since(4999)[1] is True


def test_who_missed_some_is_told_of_the_gap() -> None:
    log = EventLog()
    told(log, KEPT + 10)
    events, gap = log.since(0)
    assert gap
    assert [events[0].seq, events[-1].seq, len(events)] == [11, KEPT + 10, KEPT]
    assert not log.since(10)[1]
    assert log.since(9)[1]


def test_a_number_of_another_life_is_a_gap() -> None:
    log = EventLog()
    told(log, 2)
    events, gap = log.since(5000)
    assert gap
    assert len(events) == 2
    assert EventLog().since(7) == ([], True)


async def test_who_waits_is_woken_by_the_next_event() -> None:
    log = EventLog()
    waiters = [asyncio.create_task(log.wait(0, 30)) for _ in range(3)]
    await asyncio.sleep(0)
    told(log, 1)
    await asyncio.wait_for(asyncio.gather(*waiters), 5)
    assert not log._waiters


async def test_waiting_for_what_has_happened_or_for_no_time_returns_at_once() -> None:
    log = EventLog()
    told(log, 1)
    await asyncio.wait_for(log.wait(0, 30), 5)
    await asyncio.wait_for(log.wait(1, 0), 5)


async def test_a_wait_ends_with_its_time_its_caller_or_the_log() -> None:
    log = EventLog()
    await asyncio.wait_for(log.wait(0, 0.01), 5)
    cancelled = asyncio.create_task(log.wait(0, 30))
    closing = asyncio.create_task(log.wait(0, 30))
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.sleep(0)
    log.close()
    await asyncio.wait_for(closing, 5)
    assert not log._waiters


def test_events_of_a_fleet_are_made_when_they_are_read() -> None:
    made: list[str] = []

    def of(name: str) -> tuple[str, dict[str, object]]:
        made.append(name)
        return name, {"length": len(name)}

    log = EventLog()
    log.add_all(1.0, "device.changed", "Device", ["a", "bb", "ccc"], of)
    assert (log.seq, made) == (3, [])
    events, gap = log.since(1)
    assert [(event.seq, event.name, event.detail) for event in events] == [
        (2, "bb", {"length": 2}),
        (3, "ccc", {"length": 3}),
    ]
    assert (made, gap) == (["bb", "ccc"], False)


def test_of_a_fleet_beyond_what_is_kept_the_newest_are_told() -> None:
    log = EventLog()
    log.add_all(1.0, "device.changed", "Device", range(KEPT + 10), lambda number: (f"lamp-{number}", {}))
    events, gap = log.since(0)
    assert gap
    assert [events[0].seq, events[-1].name, len(events)] == [11, f"lamp-{KEPT + 9}", KEPT]
    told(log, 1)
    assert len(log.since(0)[0]) == KEPT


def test_nobody_is_woken_by_no_events() -> None:
    log = EventLog()
    log.add_all(1.0, "device.changed", "Device", (), lambda name: (name, {}))
    assert log.since(0) == ([], False)
