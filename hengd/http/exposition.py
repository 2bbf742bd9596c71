"""Figures in Prometheus' text format 0.0.4: one HELP, one TYPE, then a line for each value. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_ESCAPES: Final = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})


class Metric(NamedTuple):
    """One figure: its name with the unit in it, what it means, and its value for each value of one label."""

    name: str
    type: Literal["gauge", "counter"]
    meaning: str
    values: Mapping[str, float]
    """By the label's value; one without a label has the key ``""``."""
    label: str = ""


def gauge(name: str, meaning: str, value: float) -> Metric:
    """A figure that goes up and down."""
    return Metric(name, "gauge", meaning, {"": value})


def counter(name: str, meaning: str, value: float) -> Metric:
    """A figure that only grows, until the daemon starts anew."""
    return Metric(name, "counter", meaning, {"": value})


def exposition(metrics: Iterable[Metric]) -> str:
    """The text that is scraped."""
    return "".join(line + "\n" for metric in metrics for line in _lines(metric))


def _lines(metric: Metric) -> Iterable[str]:
    yield f"# HELP {metric.name} {metric.meaning}"
    yield f"# TYPE {metric.name} {metric.type}"
    for of, value in metric.values.items():
        labels = f'{{{metric.label}="{of.translate(_ESCAPES)}"}}' if metric.label else ""
        yield f"{metric.name}{labels} {_number(value)}"


def _number(value: float) -> str:
    """The shortest text that is read back as the same number."""
    return str(int(value)) if value == int(value) else repr(value)
