"""Long-polling, for networks where no WebSocket comes through, and the one request of boards that sleep."""

from henge_micro import board
from henge_micro.clock import unix_time
from henge_micro.wire import Trouble, encode, read_header

PATH = "/v1/device/config"
WAIT_S = 55
PAUSE_S = 5
"""Against a daemon that stops, or a proxy that does not wait."""


async def live(client, address, connection):
    """Fetch, apply and report until it is time to try the WebSocket again."""
    await _answered(client, address, connection, await connection.request("GET", PATH))
    await _post(client, address, connection, client.hello(), "?have=" + client.applier.running[2])
    while board.monotonic() < client.stream_from:
        client.check_link()
        report = client.owed()
        if report:
            await _post(client, address, connection, report)
            continue
        began, wait_s = board.monotonic(), int(connection.limit(WAIT_S))
        query = "?have=%s&wait=%d" % (client.applier.running[2], wait_s)
        status = await connection.request("GET", PATH + query, None, wait_s)
        if status != 304:
            await _answered(client, address, connection, status)
        elif board.monotonic() - began < min(PAUSE_S, wait_s):
            raise Trouble("closed", "", PAUSE_S)


async def brief(client, address, connection):
    """One request; a second one if something was applied, and once a day one for the welcome."""
    await _post(client, address, connection, client.hello(), "?have=" + client.applier.running[2])
    now = unix_time(connection.date)
    if now - client.seen.get("t", 0) > 86400:
        await _answered(client, address, connection, await connection.request("GET", PATH))
    client.welcomed(address, now)
    report = client.owed()
    while report:
        await _post(client, address, connection, report)
        report = client.owed()


async def _post(client, address, connection, message, query=""):
    status = await connection.request("POST", "/v1/device/report" + query, encode(message))
    await _answered(client, address, connection, status)


async def _answered(client, address, connection, status):
    if status != 200:
        raise await connection.refusal(status)
    while connection.left:
        await client.heard(address, read_header(await connection.line()), connection)
