from __future__ import annotations

from henge_protocol.hints import repeated


def test_options_that_were_given_stand_in_every_command_that_is_suggested() -> None:
    text = "see: hengectl get devices, or hengectl why lamp-1"

    assert repeated(text, "hengectl", ["--socket", "/run/my socket"]) == (
        "see: hengectl --socket '/run/my socket' get devices, or hengectl --socket '/run/my socket' why lamp-1"
    )
    assert repeated(text, "hengectl", []) == text


def test_options_of_a_command_stand_behind_its_word() -> None:
    text = "Next: henge-agent run --output FILE"

    assert repeated(text, "henge-agent", ["--state-dir", "/a b"], after_command=True) == (
        "Next: henge-agent run --state-dir '/a b' --output FILE"
    )


def test_only_commands_are_touched() -> None:
    for text in ("hengectl 0.1.0", "hengectl", "my-hengectl-get", "hengectl --help", "hengectls get"):
        assert repeated(text, "hengectl", ["--context", "x"]) == text


def test_commands_of_another_place_stay_as_they_are() -> None:
    but = ("login", "token create --admin")

    assert repeated("hengectl login URL", "hengectl", ["-x"], but=but) == "hengectl login URL"
    assert repeated("hengectl token create --admin", "hengectl", ["-x"], but=but) == "hengectl token create --admin"
    assert repeated("hengectl token create", "hengectl", ["-x"], but=but) == "hengectl -x token create"
    assert repeated("hengectl logins", "hengectl", ["-x"], but=but) == "hengectl -x logins"
