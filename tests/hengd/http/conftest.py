"""A daemon that stands for a whole module: for tests that are refused, and so leave it as they found it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.service import Admin, Clock, Service, device, group, schema, verify_store


@dataclass(frozen=True, slots=True)
class Standing:
    """The daemon, an operator on its machine, and the revision that must not move."""

    service: Service
    admin: Admin
    revision: int

    async def unmoved(self) -> bool:
        """Whether nothing was stored since the start."""
        return bool((await self.admin.ok("GET", "/v1/status"))["revision"] == self.revision)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def standing(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Standing]:
    """One schema, one group, one device; shared by the tests of a module that store nothing."""
    folder: Path = tmp_path_factory.mktemp("standing") / "state"
    service = Service(folder, Clock())
    await service.start()
    try:
        async with service.admin() as admin:
            made = await admin.apply(schema(), group("kitchen", "room=kitchen", brightness=5), device("lamp-1"))
            yield Standing(service, admin, made["revision"])
    finally:
        await service.stop()
        service.clean()
    verify_store(folder)
