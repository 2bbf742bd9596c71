from __future__ import annotations

from hengd.http.problems import STATUS
from henge_protocol.errors import CODES, Gone, Internal
from henge_protocol.problems import REFUSALS, refusal_by_status


def test_the_table_is_the_daemons_read_backwards() -> None:
    assert {kind.kind: status for status, (kind, _) in REFUSALS.items()} == STATUS


def test_every_substitute_is_a_code_of_ours() -> None:
    assert {code for _, code in REFUSALS.values()} <= CODES.keys()


def test_a_status_that_henge_never_sends_is_the_peers_failure() -> None:
    assert refusal_by_status(410) == (Gone, "join_expired")
    assert refusal_by_status(418) == (Internal, "internal")
