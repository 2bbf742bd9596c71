"""Prometheus' text format: what is escaped, how numbers are written."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hengd.http.exposition import Metric, counter, exposition, gauge


def test_each_metric_has_its_meaning_its_type_and_a_line_for_each_value() -> None:
    text = exposition(
        [
            gauge("a_bytes", "Fill.", 2**40),
            counter("b_total", "Acts.", 3),
            Metric("c", "gauge", "C.", {"x": 1, "y": 0}, "state"),
        ]
    )

    assert text == (
        "# HELP a_bytes Fill.\n# TYPE a_bytes gauge\na_bytes 1099511627776\n"
        "# HELP b_total Acts.\n# TYPE b_total counter\nb_total 3\n"
        '# HELP c C.\n# TYPE c gauge\nc{state="x"} 1\nc{state="y"} 0\n'
    )


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_is_read_back_as_it_was(value: float) -> None:
    assert float(exposition([gauge("a", "A.", value)]).splitlines()[-1].split()[1]) == value


@given(st.text())
def test_no_label_can_end_its_line_or_its_quotes(label: str) -> None:
    lines = exposition([Metric("a", "gauge", "A.", {label: 1}, "of")]).split("\n")
    inside = lines[2].removeprefix('a{of="').removesuffix('"} 1')

    assert len(lines) == 4
    assert inside.replace(r"\\", "").replace(r"\"", "").count('"') == 0
