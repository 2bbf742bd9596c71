"""Life after life: find the daemon, stay connected, come back politely, join and renew when it is time.

The board works from its last good document whatever happens here. What is needed once in months (``enrol`` and what it
needs) or by some boards only (``link``, ``poll``) is imported when it is used.
"""

import asyncio
import gc
import json
import os
import sys
from binascii import a2b_base64, hexlify

import henge_micro
from henge_micro import board
from henge_micro.applier import Applier
from henge_micro.backoff import BOOT_SPREAD_S, Backoff
from henge_micro.http import Connection
from henge_micro.store import Store
from henge_micro.wire import CLIENT, Trouble
from micropython import const

_MAX_DOCUMENT_BYTES = const(16384)
_HOURLY_S = const(3600)
_DAILY_S = const(86400)
_CLOCK_SLACK_S = const(5)
FLOOR_S = 1767312000
"""2026-01-02: no certificate of henge begins later than the first of that year, if its daemon's clock was right."""
GOOD_S = 60
"""A link that a fault ends sooner than this after its welcome was no good one: the next such fault waits longer."""
_FEED_MS = const(2000)
"""RP2's watchdog bites after 8.3 s."""

USELESS = ("certificate_revoked", "certificate_superseded", "unknown_certificate", "bad_certificate", "revoked")
"""What a daemon says of an identity that will not work again by trying."""
_PAUSES_S = {"pin_mismatch": 300, "replaced": 60}
_HOPELESS = USELESS + (
    "approval_required", "wrong_role", "no_such_device", "unsupported_protocol", "token_used", "token_invalid",
    "token_expired", "token_malformed", "token_name", "name_taken", "bad_setting",
)  # fmt: skip
"""Only a person can mend it."""
_AT_ONCE = ("again", "renewed")
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
        self.applier = Applier(self.store, (check, on_config, health), defaults or {}, board.monotonic)
        self.state = "starting"
        """In a word how things are: ``connected``, or the code of the last trouble."""
        self.show = show or _print_code
        self.confirm = confirm
        self.identity = None
        self.seen = {}
        """Where the daemon was last (``address``), and when (``t``): the floor of the clock."""
        self.stream_from = 0 if stream else 1 << 29
        self.contact_s = 0
        self._network = network or self._join_wifi
        self._feed = feed
        self._max_document = max_document
        self._backoff = Backoff(board.chance)
        self._after_faults = Backoff(board.chance)
        self._welcomed_at = None
        self._boot = hexlify(os.urandom(8)).decode()
        self._said = self._wifi = self._connection = None

    @property
    def config(self):
        """The configuration that runs."""
        return self.applier.config

    async def run(self):
        """Apply, stay connected and renew until cancelled."""
        await self._start()
        if self._feed:
            asyncio.create_task(self._keep_feeding())
        await self._sleep(BOOT_SPREAD_S * board.chance() if self.identity else 0)
        while True:
            await self._sleep(self._pause_s(await self._round()))

    async def once(self, next_contact_s):
        """One contact for a board that sleeps: what is new is applied and reported. True if the daemon was reached."""
        self.contact_s = next_contact_s
        await self._start()
        ended = await self._round()
        if self.applier.trial or self.identity and self._is_due:  # the daemon asks for a renewal
            await self.applier.give_up()
            ended = await self._round()
        await self.applier.give_up()
        return ended is None

    # ---- where and when

    async def _start(self):
        self.identity = self.store.load("identity")
        self.seen = self.store.load("seen") or {}
        floor = max(self.seen.get("t", 0), FLOOR_S)
        if board.unix_time() < floor:
            board.set_time(floor)
        await self.applier.recover()
        gc.collect()
        self.applier.max_document = self._max_document or min(_MAX_DOCUMENT_BYTES, gc.mem_free() // 8)

    async def _round(self):
        """One life with the first address that is our daemon's; the trouble it ended with, if any.

        The known addresses come first, then those announced.
        """
        if await self.applier.look():
            self._backoff.reset()
        try:
            await self._network(self.config)
        except Exception as error:  # no Wi-Fi; or a person's function, or a document whose wifi is none
            return self._note(Trouble("unreachable", "%s %s" % (type(error).__name__, error)))
        known = [_address(self.setup.get("server")), self.seen.get("address")]
        ended, tried = Trouble("no_daemon", "none announced; name it in the setup"), []
        for announced in (False, True):
            try:
                addresses = await self._seldom("announced") if announced else known
            except Trouble as error:
                return self._note(error)
            for address in addresses:
                if not address or address in tried:
                    continue
                tried.append(address)
                trouble = await self._attempt(address)
                if trouble is None or trouble.code not in _ELSEWHERE:
                    return trouble
                if not announced:  # anybody can announce, and must not decide how long we stay away
                    ended = trouble
        return ended if tried else self._note(ended)

    async def _attempt(self, address):
        clock = None
        while True:
            try:
                return await self._visit(address)
            except Trouble as error:
                if error.code == "pin_mismatch":
                    if clock is None:
                        clock = board.unix_time()
                        if await self._correct_clock(address, str(error)):
                            continue
                    else:
                        board.set_time(clock)  # whoever told the time may have lied
                return self._note(error)
            except Exception as error:  # a full heap or flash, or a fault of ours, costs an attempt and not the board
                return self._note(Trouble("internal", "%s %s" % (type(error).__name__, error)))
            finally:
                await self.hang_up()

    async def _correct_clock(self, address, trouble):
        """Whether the clock was set to a time at which the daemon's certificate may be good.

        Back only to the last contact: a certificate that ended before a moment known to have passed stays refused.
        """
        await self.hang_up()
        if "future" in trouble:
            return await self._seldom("take_hint", address)
        last = self.seen.get("t", 0)
        return "expired" in trouble and 0 < last < board.unix_time() and board.set_time(last)

    async def _visit(self, address):
        if self.identity is None:
            await self._seldom("join", address)
        if self._is_due:
            try:
                await self._seldom("renew", address)
            except Trouble as error:
                if error.code in _ELSEWHERE:
                    raise
                self._note(error)  # the old one may be good for months
                self.identity["renew_at"] = board.unix_time() + _HOURLY_S
        try:
            await self._live(address)
        except Trouble as error:
            if error.code in USELESS and "trial" in self.identity:  # the old pair stays, and asks again
                self.keep_identity(dict(self.identity, trial=None, renew_at=0))
            elif error.code in ("certificate_expired", "rescue"):
                await self._seldom("cure", address, error)
            raise

    async def _live(self, address):
        connection = await self.connect(address)
        self._said, self._wifi, self.applier.undone = None, self.config.get("wifi"), False
        self._welcomed_at = None
        if self.contact_s:
            from henge_micro.poll import brief as live
        elif board.monotonic() < self.stream_from:
            from henge_micro.poll import live
        else:
            from henge_micro.link import live
        await live(self, address, connection)

    async def _seldom(self, name, *arguments):
        """Call a function of ``enrol`` and give its memory back."""
        gc.collect()
        try:
            from henge_micro import enrol

            return await getattr(enrol, name)(self, *arguments)
        finally:
            enrol = None
            for module in ("enrol", "p256", "joining", "mdns", "clock"):
                if sys.modules.pop("henge_micro." + module, None):
                    delattr(henge_micro, module)
            gc.collect()

    @property
    def _is_due(self):
        return board.unix_time() >= self.identity["renew_at"] and "trial" not in self.identity

    def keep_identity(self, identity):
        """Durable first: one that is used and then forgotten has locked the board out."""
        identity = {name: value for name, value in identity.items() if value is not None}
        self.store.keep("identity", identity)
        self.identity = identity

    async def connect(self, address):
        """A connection as this board; ``hang_up`` ends it."""
        gc.collect()
        pair = self.identity.get("trial") or self.identity
        self._connection = Connection(
            address, [a2b_base64(text) for text in self.identity["ca"]], self.identity["fleet"],
            (a2b_base64(pair["cert"]), a2b_base64(pair["key"])), self._patience_s,
        )  # fmt: skip
        return await self._connection.open()

    async def hang_up(self):
        """End the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection:
            await connection.close()
        gc.collect()

    # ---- what link and poll share

    def hello(self):
        """Who we are and what runs."""
        epoch, revision, digest = self.applier.running
        return {
            "type": "hello", "protocol": [1, 1], "epoch": epoch, "revision": revision, "digest": digest,
            "state": "applied" if digest else "none", "boot": self._boot, "client": CLIENT, "facts": board.facts(),
            "next_contact_s": self.contact_s, "max_document": self.applier.max_document,
        }  # fmt: skip

    async def heard(self, address, message, connection):
        """Do what a message of the daemon asks for; a document's bytes are still to be read."""
        kind = message["type"]
        if kind == "welcome":
            self.welcomed(address, message["time"], message["renew_within_s"])
        elif kind == "config":
            if connection.left != message["size"]:
                raise Trouble("bad_frame", "size")
            await self.applier.take(message, connection)
            gc.collect()
        elif kind == "receipt":
            await self.applier.receipted(message)

    def welcomed(self, address, unix_s, renew_within_s=0):
        """The daemon knows us: what was on trial counts, its clock is ours; it may ask for a renewal."""
        self.state = "connected"
        self._backoff.reset()
        self._welcomed_at = board.monotonic()
        if "trial" in self.identity:
            self.keep_identity(dict(self.identity, trial=None, **self.identity["trial"]))
        if unix_s and abs(unix_s - board.unix_time()) > _CLOCK_SLACK_S:
            board.set_time(unix_s)
        if address != self.seen.get("address") or unix_s - self.seen.get("t", 0) > _DAILY_S:
            self.seen = {"address": address, "t": unix_s or self.seen.get("t", 0)}
            try:
                self.store.keep("seen", self.seen)
            except OSError:
                pass  # costs a search after the next start
        if renew_within_s:
            at = board.unix_time() + int(renew_within_s * board.chance() * (not self.contact_s))
            if at < self.identity["renew_at"] - _HOURLY_S:  # so the daemon does not hurry who has just failed
                self.identity["renew_at"] = at
        self.applier.reached()

    def owed(self):
        """The report that the daemon has not heard on this connection, or None."""
        report = self.applier.report
        if not self.applier.due or report is self._said:
            return None
        self._said = report
        return report

    def check_link(self):
        """End a connection that is not what a new one would be."""
        if self.config.get("wifi") != self._wifi or self.applier.undone or self._is_due:
            raise Trouble("again")

    # ---- pauses

    def _pause_s(self, ended):
        if ended is None or ended.code in _AT_ONCE:
            return 0
        pause_s = _HOURLY_S if ended.code in _HOPELESS else _PAUSES_S.get(ended.code)
        if pause_s:
            return pause_s * (0.8 + 0.4 * board.chance())
        if ended.fault and self._welcomed_at is not None:
            if board.monotonic() - self._welcomed_at >= GOOD_S:
                self._after_faults.reset()
            return self._after_faults.next_delay_s()
        self._after_faults.reset()
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
            await asyncio.sleep_ms(_FEED_MS)

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


def _address(server):
    """HOST:PORT, also of a URL or of a host alone."""
    address = (server or "").split("//")[-1].rstrip("/")
    return address if ":" in address or not address else address + ":4364"


def _print_code(code):
    print("henge: on the daemon's machine type: hengectl approve", code)
