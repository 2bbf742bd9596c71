"""One WebSocket's life: feeds frames to the session and does what the session says."""

from henge_micro import board
from henge_micro.wire import Session, Trouble, read_header
from henge_micro.ws import SILENCE_S, WebSocket

WELCOME_S = 10
"""A daemon that does not answer a hello for so long is none."""
STREAM_AGAIN_S = 600
"""After a WebSocket did not come through, how long to make do with long-polling."""


async def live(client, address, connection):
    """Say hello, then receive and report until the link ends; always by ``Trouble``."""
    socket = WebSocket(connection)
    try:
        await socket.upgrade("/v1/device/stream")
    except Trouble as error:
        if error.code in ("internal", "bad_json"):  # something between us that knows no WebSocket
            client.stream_from = board.monotonic() + STREAM_AGAIN_S
        raise
    session = Session()
    await socket.send(session.send(client.hello()))
    while True:
        if session.state != "expect-welcome":
            client.check_link()
            report = client.owed()
            if report:
                await socket.send(session.send(report))
        if await socket.next(WELCOME_S if session.state == "expect-welcome" else SILENCE_S):
            await _frame(client, address, connection, socket, session)


async def _frame(client, address, connection, socket, session):
    now = board.monotonic()
    try:
        message = read_header(await connection.line())
        if connection.left != message.get("size", 0):
            raise Trouble("bad_frame", "size")
        event, reply, close = session.take(message, now)
    except Trouble as error:
        if error.code == "unreachable":
            raise
        event, reply, close = session.fault(error.code, now)
    if event is None or event.get("intent") == "check":
        await connection.drain()
        if event:
            reply = session.send({"type": "error", "code": "not_implemented_here", "message": ""})
    else:
        await client.heard(address, event, connection)
    if reply:
        await socket.send(reply)
    if close:
        await socket.close(close[0])
        trouble = Trouble(close[1])
        trouble.fault = True
        raise trouble
    if session.state == "closed":
        await socket.close(1000)
        raise Trouble(event.get("reason") or event.get("code") or "closed", "", event.get("retry_after_s"))
