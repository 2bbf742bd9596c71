from __future__ import annotations

import click
import pytest

from henge_protocol.arguments import FILE, CarefulCommand


@click.command(cls=CarefulCommand)
@click.argument("what", nargs=-1)
@click.option("--name")
@click.option("--note", default="")
@click.option("--file", type=FILE)
@click.option("--label", multiple=True)
@click.option("--quiet", is_flag=True)
def careful(**given: object) -> dict[str, object]:
    return given


def said(*words: str) -> dict[str, object]:
    found: dict[str, object] = careful.main(list(words), standalone_mode=False)
    return found


def test_what_is_clear_is_taken_as_it_is() -> None:
    assert said("a", "--name", "b", "--note=c", "--label", "d", "--label", "e", "--quiet", "--quiet") == {
        "what": ("a",), "name": "b", "note": "c", "file": None, "label": ("d", "e"), "quiet": True,
    }  # fmt: skip
    assert said("--", "--name")["what"] == ("--name",)


def test_empty_is_right_where_it_is_the_default() -> None:
    assert said("--note", "")["note"] == ""


def test_a_file_may_have_any_name() -> None:
    assert said("--file", "lamp-\udcff")["file"] == "lamp-\udcff"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        pytest.param(["--name", "a", "--name", "b"], "--name is given twice", id="C03 twice"),
        pytest.param(["--name", "a", "--name=a"], "--name is given twice", id="C03 twice the same"),
        pytest.param(["--name="], "'--name': it is empty", id="C04 empty value"),
        pytest.param(["--file", ""], "'--file': it is empty", id="C04 empty name of a file"),
        pytest.param(["--label", "a", "--label", ""], "'--label': it is empty", id="C04 one of several empty"),
        pytest.param(["a", ""], "'[WHAT]...': it is empty", id="C04 empty argument"),
        pytest.param(["--name"], "requires an argument", id="C04 no value"),
        pytest.param(["--nam", "a"], "No such option '--nam'", id="C06 abbreviated"),
        pytest.param(["--note", "\udcff"], r"'--note': '\udcff' is not UTF-8", id="not UTF-8"),
        pytest.param(["a", "b\udcff"], r"'[WHAT]...': 'b\udcff' is not UTF-8", id="argument not UTF-8"),
    ],
)
def test_what_is_doubtful_is_a_usage_error(words: list[str], told: str) -> None:
    with pytest.raises(click.UsageError) as refusal:
        said(*words)

    assert told in refusal.value.format_message()
    assert refusal.value.exit_code == 2


def test_completion_is_not_disturbed_by_half_a_line() -> None:
    assert careful.make_context("careful", ["--name="], resilient_parsing=True).params["name"] == ""
