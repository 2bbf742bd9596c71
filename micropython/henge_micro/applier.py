"""Making a document the one that runs: streamed into the free slot, proved, confirmed by receipt - or undone.

receive (hash while writing) -> read -> check -> note the trial -> hand over -> health -> report ``applied`` -> receipt.
Only the receipt makes it the last good one. Without it in time, after a failure, or after a reboot in between, the last
good document comes back, and the next contact tells what was wrong: a daemon that the old document reaches proves the
new one guilty (``connectivity-lost``); none reached is an outage (``server-unreachable``), and it may be tried again.
"""

import asyncio
import gc
import hashlib
import json
from binascii import hexlify

VERDICT_S = 60
"""How long the last good document may try to reach the daemon before it is called an outage."""
HAND_OVER_S = 60
HEAP_PER_BYTE = 6
"""Memory that reading a document may take, for each of its bytes: small texts in small objects."""
MAX_TEXT_CHARS = 200
NOTHING = ("", 0, "")


class Setback(Exception):
    """Raised by a step that did not succeed: state and reason in the protocol's words, and what happened."""

    def __init__(self, state, reason, text=""):
        super().__init__(reason)
        self.report = (state, reason, text)


class Applier:
    """What runs, what ran last and well, and what the daemon should hear about it."""

    def __init__(self, store, hooks, defaults, clock):
        self._store = store
        self._check, self._on_config, self._health = hooks
        self._defaults = defaults
        self._clock = clock
        self.good = None
        """[epoch, revision, digest, slot] of the last document that was confirmed."""
        self.trial = None
        """The same of one that runs and waits for its receipt."""
        self.report = None
        """The frame that the daemon should get, until its receipt comes."""
        self.config = defaults
        """What runs now."""
        self.undone = False
        """Whether a document was undone that the daemon may believe to run: time for a new hello."""
        self.max_document = 0
        self._deadline = 0

    # ---- what the link asks

    @property
    def running(self):
        """[epoch, revision, digest] of what runs."""
        return (self.trial or self.good or NOTHING)[:3]

    @property
    def left_s(self):
        """Seconds until an unconfirmed document is undone, or until an outage is called one; None without either."""
        if self.trial or self._undecided:
            return max(0, self._deadline - self._clock())
        return None

    async def recover(self):
        """At boot: the last good document runs, whatever was under way; needs no daemon."""
        progress = self._store.load("progress") or {}
        self.good, self.report = progress.get("good"), progress.get("report")
        if self._undecided:
            self._deadline = self._clock() + VERDICT_S
        if progress.get("trial"):
            self._owe(progress["trial"], "rolled-back", "", "the board restarted before it was confirmed")
        await self._hand_over(self._last_good(), self._defaults)

    async def look(self):
        """Undo what was not confirmed in time (True); call an outage what nobody answered."""
        if self.left_s != 0:
            return False
        if self.trial:
            await self._undo("", "no receipt came in time")
            return True
        self._decide("server-unreachable")
        return False

    async def give_up(self):
        """No contact will come for long: decide now what would be decided later."""
        if self.trial:
            await self._undo("", "no receipt came")
        elif self._undecided:
            self._decide("server-unreachable")

    @property
    def due(self):
        """Whether ``report`` can be said: what was undone is not, before its reason is known."""
        return self.report and not self._undecided

    def reached(self):
        """The daemon answered."""
        if self._undecided:
            self._decide("connectivity-lost")

    async def receipted(self, receipt):
        """The daemon has a report on its disk."""
        said = [receipt[name] for name in ("revision", "digest", "state")]
        if self.report and said == [self.report[name] for name in ("revision", "digest", "state")]:
            rolled_back, self.report = self.report["state"] == "rolled-back", None
            if rolled_back:
                self._keep_anyway()
        if self.trial and said == self.trial[1:3] + ["applied"]:
            await self._confirm()

    async def _confirm(self):
        before, self.good, self.trial = self.good, self.trial, None
        try:
            self._keep()
        except OSError as error:
            self.good, self.trial = before, self.good
            await self._undo("write-failed", error)

    async def take(self, head, source):
        """Apply the document whose header has come and whose bytes ``source`` gives; how it went is ``report``.

        ``Trouble`` when the bytes break off; then nothing has changed and the daemon will offer it again. What was
        undone and is offered before the daemon knows of it is answered with that verdict.
        """
        self.reached()
        version = [head["epoch"], head["revision"], head["digest"]]
        if self.report and self.report["state"] == "rolled-back" and self.report["digest"] == version[2]:
            await source.drain()
            self.report = dict(self.report)  # to be said again
            return
        try:
            if version[2] == self.running[2]:
                await source.drain()
                self._run_again(version)
                return
            used = [record[3] for record in (self.good, self.trial) if record]
            slot = [slot for slot in "abc" if slot not in used][0]
            await self._receive(head, source, slot)
            await self._try(version + [slot], head["confirm_s"])
        except Setback as setback:
            await source.drain()
            self._owe(version, *setback.report)

    # ---- the steps

    async def _receive(self, head, source, slot):
        size = head["size"]
        gc.collect()
        if size > self.max_document or size * HEAP_PER_BYTE > gc.mem_free():
            raise Setback("rejected", "too-large", "%d bytes" % size)
        hashed = hashlib.sha256()
        try:
            with open(self._store.document(slot), "wb") as file:
                while source.left:
                    piece = await source.piece()
                    hashed.update(piece)
                    file.write(piece)
        except OSError as error:
            raise Setback("rejected", "write-failed", error)
        if hexlify(hashed.digest()).decode() != head["digest"]:
            raise Setback("rejected", "digest-mismatch")

    async def _try(self, trial, confirm_s):
        config = self._read(trial)
        try:
            if self._check:
                self._check(config)
        except Exception as error:  # whatever a person's function raises is a refusal
            raise Setback("rejected", "invalid", error)
        self.trial = trial
        try:
            self._keep()
        except OSError as error:
            self.trial = None
            raise Setback("rejected", "write-failed", error)
        self._deadline = self._clock() + confirm_s
        self.report = None
        old, self.config = self.config, config
        try:
            await self._run_hooks(config, old)
        except Setback as setback:
            await self._undo(*setback.report[1:])
            return
        self._owe(trial, "applied")

    def _read(self, trial):
        try:
            with open(self._store.document(trial[3]), "rb") as file:
                config = json.load(file)
        except ValueError:
            raise Setback("rejected", "not-json")
        except MemoryError:
            gc.collect()
            raise Setback("rejected", "too-large", "no memory to read it")
        if not isinstance(config, dict):
            raise Setback("rejected", "invalid", "not an object")
        return config

    async def _run_hooks(self, config, old):
        reason = "hook-failed"
        try:
            await self._in_time(_call(self._on_config, config, old))
            reason = "health-failed"
            healthy = await self._in_time(_call(self._health, config))
        except asyncio.TimeoutError:
            raise Setback("rolled-back", "hook-timeout")
        except Exception as error:  # whatever a person's function raises is a failure of the document
            raise Setback("rolled-back", reason, "%s: %s" % (type(error).__name__, error))
        if healthy is False:
            raise Setback("rolled-back", reason)

    async def _in_time(self, work):
        return await asyncio.wait_for(work, self.left_s)

    async def _undo(self, reason, text):
        """The last good document comes back; without a reason the next contact decides on one."""
        trial, self.trial = self.trial, None
        self.undone = True
        self._owe(trial, "rolled-back", reason, text)
        await self._hand_over(self._last_good(), self.config)

    def _last_good(self):
        if self.good:
            value = self._store.read_document(self.good[3], self.good[2])
            if value is not None:
                return value
            self.good = None  # damaged flash: the daemon sends it again
        return self._defaults

    async def _hand_over(self, config, old):
        """The person's function gets what must run in any case; its failing changes nothing, its hanging ends."""
        self.config = config
        try:
            await asyncio.wait_for(_call(self._on_config, config, old), HAND_OVER_S)
        except Exception as error:  # as above, and there is nothing better to go back to
            print("henge: on_config failed with the last good document:", type(error).__name__, error)

    # ---- what is owed

    @property
    def _undecided(self):
        return self.report and self.report["state"] == "rolled-back" and not self.report["reason"]

    def _decide(self, reason):
        self.report["reason"] = reason
        self._keep_anyway()

    def _owe(self, version, state, reason="", text=""):
        self.report = {
            "type": "report", "epoch": version[0], "revision": version[1], "digest": version[2], "state": state,
            "reason": reason, "errors": [{"pointer": "", "message": str(text)[:MAX_TEXT_CHARS]}] if text else [],
        }  # fmt: skip
        if self._undecided:
            self._deadline = self._clock() + VERDICT_S
        if state == "rolled-back":
            self._keep_anyway()

    def _run_again(self, version):
        """The same document under another revision."""
        record = self.trial or self.good
        if record:
            record[:3] = version
            self._owe(version, "applied")

    def _keep(self):
        kept = self.report if self.report and self.report["state"] == "rolled-back" else None
        self._store.keep("progress", {"good": self.good, "trial": self.trial, "report": kept})

    def _keep_anyway(self):
        try:
            self._keep()
        except OSError as error:
            print("henge: progress is not kept:", error)


async def _call(hook, *arguments):
    """Call a person's function, plain or async."""
    result = hook(*arguments) if hook else None
    return await result if hasattr(result, "send") else result
