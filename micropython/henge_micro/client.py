"""Life after life: find the daemon, join, stay connected, come back politely, renew in time.

The board works from its last good document whatever happens here.
"""

import asyncio
import gc
import json
import os
import sys
from binascii import a2b_base64, hexlify

from henge_micro import board
from henge_micro.applier import Applier
from henge_micro.backoff import BOOT_SPREAD_S, Backoff
from henge_micro.http import Connection
from henge_micro.store import Store
from henge_micro.wire import Session, Trouble, digest_of, encode, read_header
from henge_micro.ws import WebSocket

CLIENT = "henge-micro/0.1"
MAX_DOCUMENT_BYTES = 16384
BROWSE_S = 4
POLL_WAIT_S = 55
POLL_PAUSE_S = 5
STREAM_AGAIN_S = 600
"""After a WebSocket did not come through, how long to make do with long-polling."""
HOURLY_S = 3600
CLOCK_SLACK_S = 5
DAILY_S = 86400
FEED_MS = 2000
"""RP2's watchdog bites after 8.3 s."""

USELESS = ("certificate_revoked", "certificate_superseded", "unknown_certificate", "bad_certificate", "revoked")
"""What a daemon says of an identity that will not work again by trying."""
_PAUSES_S = {"pin_mismatch": 300, "replaced": 60, "certificate_expired": 60}
for _code in USELESS + ("approval_required", "wrong_role", "no_such_device", "unsupported_protocol", "token_used",
                        "token_invalid", "token_expired", "token_malformed", "token_name", "name_taken"):  # fmt: skip
    _PAUSES_S[_code] = HOURLY_S  # only a person can mend it
_AT_ONCE = ("again", "renew", "renewed")
"""Ends that we chose ourselves."""
_ELSEWHERE = ("unreachable", "pin_mismatch", "no_daemon", "bad_trust_answer", "enrolment_closed")


class Client:
    """One board of a fleet. ``config`` is what runs now; ``run`` beside your own tasks keeps it so.

    ``setup``       what the board was given: a dict, or the path of a JSON file with ``server`` (HOST:PORT, else mDNS),
                    ``token``, ``name``, ``schema``, ``wifi`` ({ssid, password}), ``accept_first``
    ``defaults``    the configuration until the first document comes
    ``on_config``   called with (new, old) at start and for each document; plain or async; raising undoes the document
    ``check``       called with a candidate before anything changes; raising refuses it
    ``health``      called after ``on_config``; False or raising undoes the document
    ``network``     async, called with the running configuration before each attempt to connect; joins the Wi-Fi of
                    ``config["wifi"]``, else that of the setup, if not given
    ``show``        called with the eight digits while an operator is awaited
    ``confirm``     async, asks a person whether both sides show the same digits
    ``feed``        called every two seconds, for a watchdog
    """

    def __init__(
        self, folder="henge", setup="henge.json", defaults=None, on_config=None, check=None, health=None, network=None,
        show=None, confirm=None, feed=None, max_document=0, stream=True,
    ):  # fmt: skip
        self.setup = setup if isinstance(setup, dict) else _read_json(setup)
        self.store = Store(folder)
        hooks = {"on_config": on_config, "check": check, "health": health}
        self.applier = Applier(self.store, hooks, defaults or {}, board.monotonic)
        self.state = "starting"
        """In a word how things are: ``connected``, or the code of the last trouble."""
        self._network = network or self._join_wifi
        self._show = show or _print_code
        self._confirm = confirm
        self._feed = feed
        self._max_document = max_document
        self._stream_from = 0 if stream else 1 << 29
        self._backoff = Backoff(board.chance)
        self._boot = hexlify(os.urandom(8)).decode()
        self._contact_s = 0
        self._identity = None
        self._seen = {}
        self._said = None
        self._connection = None

    @property
    def config(self):
        """The configuration that runs."""
        return self.applier.config

    async def run(self):
        """Apply, stay connected and renew until cancelled."""
        await self._start()
        if self._feed:
            asyncio.create_task(self._keep_feeding())
        await self._sleep(BOOT_SPREAD_S * board.chance() if self._identity else 0)
        while True:
            await self._sleep(self._pause_s(await self._round()))

    async def once(self, next_contact_s):
        """One contact for a board that sleeps: what is new is applied and reported. True if the daemon was reached."""
        self._contact_s = next_contact_s
        await self._start()
        ended = await self._round()
        if self.applier.trial:
            await self.applier.give_up()
            ended = await self._round()
        await self.applier.give_up()
        return ended is None

    # ---- where and when

    async def _start(self):
        self._identity = self.store.load("identity")
        self._seen = self.store.load("seen") or {}
        if board.unix_time() < self._seen.get("t", 0):
            board.set_time(self._seen["t"])
        await self.applier.recover()
        gc.collect()
        self.applier.max_document = self._max_document or min(MAX_DOCUMENT_BYTES, gc.mem_free() // 8)

    async def _round(self):
        """One life with the first address that is our daemon's; the trouble it ended with, if any."""
        if await self.applier.look():
            self._backoff.reset()
        try:
            await self._network(self.config)
        except OSError as error:
            return self._note(Trouble("unreachable", str(error)))
        ended = None
        for known in (self._known, self._announced):
            for address in await known():
                ended = await self._attempt(address)
                if ended is None or ended.code not in _ELSEWHERE:
                    return ended
        return ended or self._note(Trouble("no_daemon", "nobody announces a daemon; name it in the setup"))

    async def _known(self):
        known = [self.setup.get("server"), self._seen.get("address")]
        return [address for at, address in enumerate(known) if address and address not in known[:at]]

    async def _announced(self):
        from henge_micro import joining, mdns

        known, identity = await self._known(), self._identity
        fp = ""
        if not identity and self.setup.get("token"):
            fp = hexlify(joining.parse_token(self.setup["token"])[2][:8]).decode()

        def wanted(hint):
            return hint["fleet"] == identity["fleet"] if identity else not fp or hint["fp"] in ("", fp)

        found = await mdns.browse(BROWSE_S, wanted, *self.setup.get("mdns", ()))
        _drop("mdns", "joining")
        return [address for address in ["%s:%d" % each[:2] for each in found] if address not in known]

    async def _attempt(self, address):
        clock = None
        try:
            while True:
                try:
                    return await self._visit(address)
                except Trouble as error:
                    if clock is None and error.code == "pin_mismatch" and "future" in str(error):
                        clock = board.unix_time()
                        if await self._take_hint(address, clock):
                            continue
                    if clock is not None and error.code == "pin_mismatch":
                        board.set_time(clock)  # whoever told the time may have lied
                    return self._note(error)
                finally:
                    await self._hang_up()
        except MemoryError:
            return self._note(Trouble("internal", "out of memory"))

    async def _take_hint(self, address, clock):
        """A board that starts in 2000 cannot verify anybody: believe whoever answers about the time, forward only."""
        from henge_micro.enrol import fetch_trust

        try:
            hint = (await fetch_trust(address, None))[2]
        except Trouble:
            return False
        return bool(hint and hint > clock and board.set_time(hint))

    async def _visit(self, address):
        if self._identity is None:
            await self._join(address)
        if board.unix_time() >= self._identity["renew_at"] and "trial" not in self._identity:
            await self._renew(address)
        try:
            await self._live(address)
        except Trouble as error:
            if error.code in USELESS and "trial" in self._identity:  # refused: the old pair stays, and asks again
                self._keep_identity(dict(self._identity, trial=None, renew_at=0))
            elif error.code == "certificate_expired" and await self._renew(address):
                raise Trouble("renewed")
            raise

    # ---- joining and renewing

    async def _join(self, address):
        from henge_micro import enrol

        name = self.setup.get("name") or "board-" + hexlify(os.urandom(3)).decode()
        facts = board.facts()
        if self.setup.get("schema"):
            facts["schema"] = self.setup["schema"]
        about = {"name": name, "facts": facts, "client": CLIENT}
        if self.setup.get("token"):
            identity = await enrol.by_token(address, self.setup["token"], about, self.store)
        elif self._confirm or self.setup.get("accept_first"):
            identity = await enrol.by_code(address, about, self._show, self._confirm or _yes)
        else:
            raise Trouble("bad_setting", "no token, and nobody to compare a code with: see accept_first")
        self._keep_identity(identity)
        self.store.forget("joining")
        _drop("enrol", "p256", "joining", "mdns")

    async def _renew(self, address):
        from henge_micro import enrol

        await self._hang_up()
        self._connection = await self._connect(address)
        try:
            self._keep_identity(await enrol.renew(self._connection, self._identity, CLIENT))
            return True
        except Trouble as error:
            if error.code in _ELSEWHERE or error.code in USELESS:
                raise
            self._note(error)
            self._identity["renew_at"] = board.unix_time() + HOURLY_S  # the daemon does not want to now
            return False
        finally:
            _drop("enrol", "p256", "joining", "mdns")
            await self._hang_up()

    def _keep_identity(self, identity):
        self._identity = {name: value for name, value in identity.items() if value is not None}
        self.store.keep("identity", self._identity)

    async def _connect(self, address):
        gc.collect()
        identity = self._identity
        pair = identity.get("trial") or identity
        self._connection = Connection(
            address,
            [a2b_base64(text) for text in identity["ca"]],
            identity["fleet"],
            (a2b_base64(pair["cert"]), a2b_base64(pair["key"])),
            self._patience_s,
        )
        return await self._connection.open()

    async def _hang_up(self):
        if self._connection:
            await self._connection.close()
        self._connection = None
        gc.collect()

    # ---- one connection's life

    async def _live(self, address):
        connection = await self._connect(address)
        self._said = None
        self.applier.undone = False
        if self._contact_s:
            await self._brief(address, connection)
        elif board.monotonic() < self._stream_from:
            await self._poll(address, connection)
        else:
            socket = WebSocket(connection)
            try:
                await socket.upgrade("/v1/device/stream")
            except Trouble as error:
                if error.code in ("internal", "bad_json"):  # something between us that knows no WebSocket
                    self._stream_from = board.monotonic() + STREAM_AGAIN_S
                raise
            await self._stream(address, connection, socket)

    async def _stream(self, address, connection, socket):
        session = Session(board.monotonic())
        await socket.send(session.send(self._hello()))
        wifi = self.config.get("wifi")
        while True:
            if session.state in ("idle", "applying"):
                self._check_link(wifi)
                for report in self._owed():
                    await socket.send(session.send(report))
            if await socket.next():
                await self._frame(address, connection, socket, session)

    async def _frame(self, address, connection, socket, session):
        now = board.monotonic()
        try:
            message = read_header(await connection.line())
            if connection.rest != message.get("size", 0):
                raise Trouble("bad_frame", "size")
            event, reply, close = session.take(message, now)
        except Trouble as error:
            if error.code == "unreachable":
                raise
            event, reply, close = session.fault(error.code, now)
        if event is None:
            await connection.drain()
        elif event["type"] == "config" and event["intent"] != "apply":
            await connection.drain()
            reply = session.send({"type": "error", "code": "not_implemented_here", "message": "a board cannot check"})
        else:
            await self._heard(address, event, connection)
        if reply:
            await socket.send(reply)
        if close:
            await socket.close(close[0])
            raise Trouble(close[1])
        if session.state == "closed":
            raise Trouble(event.get("reason") or event.get("code") or "closed", None, event.get("retry_after_s"))

    async def _poll(self, address, connection):
        """Long-polling: the same frames, one request at a time."""
        await self._answered(address, connection, await connection.request("GET", "/v1/device/config"))
        await self._post(address, connection, self._hello(), "?have=" + self.applier.running[2])
        wifi = self.config.get("wifi")
        while board.monotonic() < self._stream_from:
            self._check_link(wifi)
            for report in self._owed():
                await self._post(address, connection, report)
            began, wait_s = board.monotonic(), int(self._patience_s(POLL_WAIT_S))
            path = "/v1/device/config?have=%s&wait=%d" % (self.applier.running[2], wait_s)
            status = await connection.request("GET", path, None, wait_s)
            if status != 304:
                await self._answered(address, connection, status)
            elif board.monotonic() - began < min(POLL_PAUSE_S, wait_s):
                await asyncio.sleep(POLL_PAUSE_S)  # against a daemon or proxy that does not wait

    async def _brief(self, address, connection):
        """One request; a second one if something was applied."""
        await self._post(address, connection, self._hello(), "?have=" + self.applier.running[2])
        self._welcomed(address, connection.date)
        for report in self._owed():
            await self._post(address, connection, report)

    async def _post(self, address, connection, message, query=""):
        status = await connection.request("POST", "/v1/device/report" + query, encode(message))
        await self._answered(address, connection, status)

    async def _answered(self, address, connection, status):
        if status != 200:
            raise await connection.refusal(status)
        while connection.rest:
            message = read_header(await connection.line())
            await self._heard(address, message, connection)

    async def _heard(self, address, message, connection):
        kind = message["type"]
        if kind == "welcome":
            self._welcomed(address, message["time"])
        elif kind == "config":
            await self.applier.take(message, connection)
            gc.collect()
        elif kind == "receipt":
            await self.applier.receipted(message)

    def _hello(self):
        epoch, revision, digest = self.applier.running
        return {
            "type": "hello", "protocol": [1, 1], "epoch": epoch, "revision": revision, "digest": digest,
            "state": "applied" if digest else "none", "boot": self._boot, "client": CLIENT, "facts": board.facts(),
            "next_contact_s": self._contact_s, "max_document": self.applier.max_document,
        }  # fmt: skip

    def _welcomed(self, address, unix_s):
        self.state = "connected"
        self._backoff.reset()
        if self._identity.get("trial"):
            self._keep_identity(dict(self._identity, trial=None, **self._identity["trial"]))
        if unix_s:
            if abs(unix_s - board.unix_time()) > CLOCK_SLACK_S:
                board.set_time(unix_s)
            if address != self._seen.get("address") or unix_s - self._seen.get("t", 0) > DAILY_S:
                self._seen = {"address": address, "t": unix_s}
                try:
                    self.store.keep("seen", self._seen)
                except OSError:
                    pass  # costs a search after the next start
        self.applier.reached()

    def _owed(self):
        """The report that the daemon has not heard on this connection."""
        while self.applier.due and self.applier.report is not self._said:
            self._said = self.applier.report
            yield self._said

    def _check_link(self, wifi):
        """End a connection that is not what a new one would be."""
        if self.config.get("wifi") != wifi or self.applier.undone:
            raise Trouble("again")
        if board.unix_time() >= self._identity["renew_at"]:
            raise Trouble("renew")

    # ---- pauses

    def _pause_s(self, ended):
        if ended is None or ended.code in _AT_ONCE:
            return 0
        if ended.code in _PAUSES_S:
            return _PAUSES_S[ended.code] * (0.8 + 0.4 * board.chance())
        if ended.retry_after_s:
            self._backoff.hint(ended.retry_after_s)
        return self._backoff.next_delay_s()

    def _patience_s(self, seconds):
        """Nobody waits beyond the moment at which an unconfirmed document is undone."""
        left_s = self.applier.left_s
        return seconds if left_s is None else min(seconds, left_s + 0.1)

    async def _sleep(self, seconds):
        await asyncio.sleep_ms(int(self._patience_s(seconds) * 1000))

    async def _keep_feeding(self):
        while True:
            self._feed()
            await asyncio.sleep_ms(FEED_MS)

    async def _join_wifi(self, config):
        wifi = config.get("wifi") or self.setup.get("wifi")
        if wifi:
            await board.join_wifi(wifi.get("ssid"), wifi.get("password"))

    def _note(self, error):
        if error.code != self.state and error.code not in _AT_ONCE:
            print("henge:", error)
        self.state = error.code
        return error


def _read_json(path):
    try:
        with open(path) as file:
            return json.load(file)
    except OSError:
        return {}


def _drop(*modules):
    """Forget modules that are used once in months."""
    for name in modules:
        sys.modules.pop("henge_micro." + name, None)


def _print_code(code):
    print("henge: on the daemon's machine type: hengectl approve", code)


async def _yes(code):
    return True
