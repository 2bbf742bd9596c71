"""Who knows which authorities: what records say, and which step leads from one state to another."""

from __future__ import annotations

from typing import Any

import pytest

from hengd.authorities import InForce
from hengd.records import CertificateRecord
from hengd.rules.anchors import Owner, is_outdated, step_between


def record(*told: str, signed_by: str = "c1", **fields: Any) -> CertificateRecord:
    known = {"role": "device", "subject": "lamp", "spki": "", "not_after": 1.0, "state": "active", "via": "token"}
    return CertificateRecord(**known | fields, told=list(told), signed_by=signed_by)


@pytest.mark.parametrize(
    ("told", "in_force", "outdated"),
    [
        (["a"], ["a"], False),
        (["a"], ["a", "b"], True),
        (["a", "b"], ["a", "b"], False),
        (["a", "b"], ["b", "a"], False),  # the switch is nothing that a device needs to hear of
        (["a", "b"], ["b"], True),  # the old one is to be forgotten
        (["a", "b"], ["a"], True),  # and so is one that was given up
        (["a"], ["b"], True),
        ([], ["a"], False),
        ([], ["a", "b"], True),
    ],
)
def test_a_certificate_is_outdated_unless_its_owner_knows_just_what_is_in_force(
    told: list[str], in_force: list[str], outdated: bool
) -> None:
    assert is_outdated(record(*told), InForce(tuple(in_force), "c1", is_client_moving=False)) is outdated


@pytest.mark.parametrize(
    ("signed_by", "moving", "outdated"),
    [
        ("c1", False, False), ("c2", False, False), ("", False, False),
        ("c1", True, True), ("c2", True, False), ("", True, True),
    ],
)  # fmt: skip
def test_a_certificate_of_another_client_authority_is_outdated_while_both_are_let_in(
    signed_by: str, moving: bool, outdated: bool
) -> None:
    assert is_outdated(record("a", signed_by=signed_by), InForce(("a",), "c2", moving)) is outdated


def test_an_operator_knows_what_each_of_his_machines_was_told() -> None:
    both, one = record("a", "b"), record("a", signed_by="c2")
    ada = Owner("operator", "ada", "ada", (both, one))

    assert (ada.knows("a"), ada.knows("b"), ada.is_signed_by("c1")) == (True, False, False)
    assert Owner("operator", "ada", "ada", (both,)).knows("b")


@pytest.mark.parametrize(
    ("before", "after", "switched", "step"),
    [
        ("s:a c:x", "s:a s:b c:x", False, ("authority.introduced", "server")),
        ("s:a s:b c:x", "s:b s:a c:x", False, ("authority.switched", "server")),
        ("s:a s:b c:x", "s:a c:x", False, ("authority.withdrawn", "server")),
        ("s:b s:a c:x", "s:b c:x", True, ("authority.dropped", "server")),
        ("s:a c:x", "s:a c:y c:x", False, ("authority.introduced", "client")),
        ("s:a c:y c:x", "s:a c:y", False, ("authority.dropped", "client")),
    ],
)
def test_a_step_is_known_by_what_it_leads_from_and_to(
    before: str, after: str, switched: bool, step: tuple[str, str]
) -> None:
    was, now = (text.replace("s:", "server:").replace("c:", "client:").split() for text in (before, after))
    assert step_between(was, now, is_switched=switched) == step
