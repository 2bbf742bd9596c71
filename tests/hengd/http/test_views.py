"""What a change did is told in pieces."""

from __future__ import annotations

import asyncio
import json

from hengd.http.views import PIECE, between_response, explained_response, outcome_response
from hengd.rules.between import Between
from hengd.rules.merge import FieldChange
from hengd.rules.outcome import Done, Moved, Outcome
from hengd.rules.why import Explained

CHANGES = (FieldChange("/color", "red", "blue"),)


def devices(count: int) -> tuple[Moved, ...]:
    """So many devices that get another document."""
    return tuple(Moved(f"lamp-{number}", "a" * 64, "b" * 64, CHANGES) for number in range(count))


async def turns_during(answer: asyncio.Task[object]) -> int:
    """How often somebody else had a turn until the answer was there."""
    turns = 0
    while not answer.done():
        turns += 1
        await asyncio.sleep(0)
    return turns


async def test_a_change_of_a_large_fleet_is_told_whole_and_gives_others_their_turns() -> None:
    outcome = Outcome(7, "e", True, (Done("Group", "all", "configured", CHANGES),), devices(5 * PIECE + 1), "wide")
    answer = asyncio.create_task(outcome_response(outcome))
    turns = await turns_during(answer)  # type: ignore[arg-type]
    told = json.loads(answer.result().body)  # type: ignore[arg-type]

    assert turns >= 6
    assert [one["name"] for one in told["devices"]] == [f"lamp-{number}" for number in range(5 * PIECE + 1)]
    assert told["devices"][-1]["changes"] == [{"pointer": "/color", "before": "red", "after": "blue"}]
    assert {key: told[key] for key in ("revision", "epoch", "dry_run", "too_wide", "managed")} == {
        "revision": 7, "epoch": "e", "dry_run": True, "too_wide": "wide", "managed": "",
    }  # fmt: skip
    assert [one["name"] for one in told["objects"]] == ["all"]


async def test_nothing_is_told_as_nothing() -> None:
    response = await between_response(Between(1, 2, (), ()))

    assert json.loads(response.body) == {"from": 1, "to": 2, "objects": [], "devices": []}  # type: ignore[arg-type]


async def test_why_of_many_fields_is_told_whole_and_gives_others_their_turns() -> None:
    fields = [Explained(f"f{number}", f"/f{number}", True, number, ()) for number in range(5 * PIECE + 1)]
    answer = asyncio.create_task(explained_response("lamp-1", fields))
    turns = await turns_during(answer)  # type: ignore[arg-type]
    told = json.loads(answer.result().body)  # type: ignore[arg-type]

    assert turns >= 6
    assert (told["device"], [one["value"] for one in told["fields"]]) == ("lamp-1", list(range(5 * PIECE + 1)))
