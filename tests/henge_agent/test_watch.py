"""Real files, real inotify."""

# ruff: noqa: ASYNC240 - a test looks at small files
from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from henge_agent.watch import Watch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "lamp.json"
    path.parent.mkdir()
    path.write_text("old")
    return path


def replace(path: Path) -> None:
    path.with_suffix(".tmp").write_text("new")
    path.with_suffix(".tmp").rename(path)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.write_text("new"),
        replace,
        Path.unlink,
        lambda path: path.rename(path.with_suffix(".away")),
        lambda path: path.chmod(0o600),
        lambda path: path.parent.rename(path.parent.with_name("away")),
    ],
    ids=["written", "replaced", "removed", "renamed", "chmod", "folder renamed"],
)
async def test_every_kind_of_change_is_noticed(path: Path, change: Callable[[Path], object]) -> None:
    with closing(Watch([path])) as watch:
        change(path)
        async with asyncio.timeout(20):
            await watch.changed()


async def test_neighbours_and_readers_are_not_noticed(path: Path) -> None:
    with closing(Watch([path])) as watch:
        path.with_name("other.json").write_text("new")
        path.read_text()
        watch._read()

        assert not watch._changed.is_set()


async def test_a_folder_that_comes_later_is_watched_once_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "later" / "lamp.json"
    with closing(Watch([path])) as watch:
        path.parent.mkdir()
        watch.renew()
        path.write_text("new")
        async with asyncio.timeout(20):
            await watch.changed()


async def test_what_was_changed_before_a_later_folder_was_watched_is_not_missed(tmp_path: Path) -> None:
    path = tmp_path / "later" / "lamp.json"
    with closing(Watch([path])) as watch:
        path.parent.mkdir()
        path.write_text("new")
        watch.renew()
        async with asyncio.timeout(20):
            await watch.changed()
        watch.renew()

        assert not watch._changed.is_set()


async def test_a_system_without_watching_is_told_and_nothing_fails(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("henge_agent.watch._checked", lambda _: (_ for _ in ()).throw(OSError(24, os.strerror(24))))
    with closing(Watch([path])) as watch:
        watch.renew()

    assert "noticed only when the agent connects: [Errno 24]" in caplog.text
