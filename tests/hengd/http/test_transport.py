"""The TLS implementation: what it is kept from doing, and that verification stays what it was."""

from __future__ import annotations

import contextlib
import logging
import ssl
import tempfile

import pytest

from hengd.http.transport import prepare
from tests.hengd.http.gatekit import GET, Pki, running


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


async def test_a_handshake_needs_no_temporary_file(pki: Pki, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent")
    async with running(ssl=pki.server()) as rig, await rig.connect(pki.client(pki.device)) as wire:
        wire.send(GET)

        assert (await wire.response()).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("mode", [ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED])
async def test_a_prepared_context_verifies_as_before(pki: Pki, mode: ssl.VerifyMode) -> None:
    context = pki.server()
    context.verify_mode = mode
    prepare(context)
    async with running(ssl=context) as rig:
        for leaf in (pki.strangers.issue("stranger"), pki.servers.issue("self-serving")):
            with contextlib.suppress(OSError):
                assert await rig.ask(GET, pki.client(leaf)) == b""
        if mode == ssl.CERT_REQUIRED:
            with contextlib.suppress(OSError):
                assert await rig.ask(GET, pki.client()) == b""

        assert rig.peers == []
        assert rig.gate.handshake_failures.total() == (3 if mode == ssl.CERT_REQUIRED else 2)


def test_preparing_twice_or_nothing_changes_nothing(pki: Pki) -> None:
    context = pki.server()
    prepare(context)
    prepare(context)
    prepare(None)

    assert isinstance(context, ssl.SSLContext)
    assert logging.getLogger("aiofastnet").level == logging.CRITICAL
