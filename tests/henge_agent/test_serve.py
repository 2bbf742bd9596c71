from __future__ import annotations

import asyncio
import os
import signal
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from henge_agent.serve import assemble, boot_nonce, facts, serve, surroundings
from henge_agent.settings import Hooks, Output
from henge_agent.state import State
from henge_protocol.errors import Conflict
from henge_protocol.wire import Hello, decode, encode
from tests.henge_agent.scripted import Scripted


async def test_it_serves_until_sigterm_and_tells_the_service_manager(
    joined: State, scripted: Scripted, tmp_path: Path
) -> None:
    assert joined.membership is not None
    joined.keep_membership(replace(joined.membership, address=str(scripted.address)))
    joined.close()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        environ = {"PATH": os.environ["PATH"], "NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "1000000"}
        serving = asyncio.create_task(serve(joined.folder, (Output(tmp_path / "x.json", "json"),), Hooks(), environ))
        await scripted.want(b"{}")
        await scripted.reported("applied")
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(10):
            await serving
        manager.setblocking(False)
        said = []
        while True:
            try:
                said.append(manager.recv(4096).decode())
            except BlockingIOError:
                break

    assert said[:2] == ["READY=1", "WATCHDOG=1"]
    assert any(line.startswith("STATUS=connected to 127.0.0.1") for line in said)
    assert said[-1] == "STOPPING=1"


@pytest.mark.parametrize(
    ("outputs", "hooks", "told"),
    [((), Hooks(), True), ((), Hooks(on_change="true"), False), ((Output(Path("/x"), "json"),), Hooks(), False)],
    ids=["nothing", "a command", "an output"],
)
def test_an_agent_that_would_do_nothing_with_a_document_says_so(
    joined: State, caplog: pytest.LogCaptureFixture, outputs: tuple[Output, ...], hooks: Hooks, told: bool
) -> None:
    assemble(joined, outputs, hooks, surroundings({}), {})

    assert ("no output is named (--output FILE)" in caplog.text) == told


async def test_a_device_that_has_not_joined_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(Conflict) as refusal:
        await serve(tmp_path / "state", (), Hooks(), {})

    assert refusal.value.code == "not_joined"


def test_what_the_device_says_of_itself_passes_the_daemons_door() -> None:
    hello = Hello(boot=boot_nonce(), facts=facts())

    assert decode(encode(hello)) == hello
    assert {"arch", "kernel", "python"} <= facts().keys()


def test_the_real_surroundings_know_the_time_since_boot() -> None:
    around = surroundings({})

    assert 0 < around.uptime_s
    assert 0 <= around.random() < 1
