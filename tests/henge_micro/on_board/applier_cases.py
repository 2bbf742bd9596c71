"""The applier on a board's file systems: cases that pytest runs one by one (``tests/henge_micro/test_applier.py``)."""

import asyncio
import os

from flash import Flash

from henge_micro.applier import VERDICT_S, Applier
from henge_micro.store import Store
from henge_micro.wire import Trouble, digest_of

FACTORY = {"color": "factory"}
GREEN = b'{"color":"green","text":"' + b"g" * 900 + b'"}'
RED = b'{"color":"red","text":"' + b"r" * 1700 + b'"}'
CONFIRM_S = 100


class Source:
    """A document that arrives in pieces; after ``cut`` bytes the connection breaks."""

    def __init__(self, document, cut=None):
        self._document = document if cut is None else document[:cut]
        self._at = 0
        self._broken = cut is not None
        self.left = len(document)

    async def piece(self):
        """As a connection gives it."""
        piece = self._document[self._at : self._at + 512]
        if not piece and self._broken:
            raise Trouble("unreachable", "cut")
        self._at += len(piece)
        self.left -= len(piece)
        return piece

    async def drain(self):
        """As a connection does it."""
        self.left = 0


class Bench:
    """A board on a flash, and a clock that the case moves."""

    def __init__(self, flash=None, **hooks):
        self.flash = flash or Flash(os.VfsLfs2)
        self.hooks = hooks
        self.now = 1000
        self.applier = None
        self.shown = []
        hooks.setdefault("on_config", self.show)
        self.flash.unmount()  # that of an earlier board
        self.flash.mount()

    def show(self, new, old):
        """The person's function."""
        self.shown.append(new["color"])

    def boot(self):
        """Power on and recover."""
        hooks = [self.hooks.get(name) for name in ("check", "on_config", "health")]
        self.applier = Applier(Store("/flash/henge"), hooks, FACTORY, lambda: self.now)
        self.applier.max_document = 16384
        asyncio.run(self.applier.recover())
        return self.applier

    def reboot(self):
        """Power off and on."""
        self.flash.unmount()
        self.flash.mount()
        return self.boot()

    def offer(self, document, revision=1, source=None, digest=None, receipt=True):
        """The daemon sends a document, and the receipt of what the board says if it can say it."""
        digest = digest or digest_of(document)
        head = {"epoch": "e1", "revision": revision, "digest": digest, "size": len(document), "confirm_s": CONFIRM_S}
        asyncio.run(self.applier.take(head, source or Source(document)))
        if receipt and self.applier.due:
            self.receipt(revision, document, self.applier.report["state"])

    def receipt(self, revision, document, state="applied"):
        """The daemon has a report on its disk."""
        receipt = {"type": "receipt", "revision": revision, "digest": digest_of(document), "state": state}
        asyncio.run(self.applier.receipted(receipt))

    def pass_time(self, seconds):
        """And look what is due."""
        self.now += seconds
        return asyncio.run(self.applier.look())

    def says(self):
        """What the daemon should hear: (state, reason)."""
        report = self.applier.report
        return (report["state"], report["reason"]) if report and self.applier.due else None

    @property
    def color(self):
        """What runs."""
        return self.applier.config["color"]


def on_green(**hooks):
    """A board that runs the confirmed green document."""
    bench = Bench(**hooks)
    bench.boot()
    bench.offer(GREEN)
    return bench


def test_a_receipt_makes_the_document_the_last_good_one():
    bench = on_green()
    bench.offer(RED, 2)
    assert bench.applier.trial is None and bench.says() is None
    bench.reboot()
    assert bench.color == "red" and bench.applier.running == ["e1", 2, digest_of(RED)]
    assert bench.shown == ["factory", "green", "red", "red"]


def test_without_a_receipt_a_daemon_that_the_old_document_reaches_proves_the_new_one_guilty():
    bench = on_green()
    bench.offer(RED, 2, receipt=False)
    assert bench.says() == ("applied", "") and bench.color == "red"
    assert not bench.pass_time(CONFIRM_S - 1) and bench.color == "red"
    assert bench.pass_time(1) and bench.color == "green"
    assert bench.says() is None, "the reason is not known yet"
    bench.applier.reached()
    assert bench.says() == ("rolled-back", "connectivity-lost")
    bench.reboot()
    assert bench.says() == ("rolled-back", "connectivity-lost"), "said until its receipt comes"
    bench.receipt(2, RED, "rolled-back")
    bench.reboot()
    assert bench.says() is None and bench.color == "green"


def test_what_was_undone_is_not_applied_again_before_the_daemon_knows_of_it():
    bench = on_green()
    bench.offer(RED, 2, receipt=False)
    bench.pass_time(CONFIRM_S)
    said = bench.applier.report
    bench.offer(RED, 2, receipt=False)
    assert bench.says() == ("rolled-back", "connectivity-lost") and bench.color == "green"
    assert bench.applier.report is not said, "it is to be said again"
    bench.receipt(2, RED, "rolled-back")
    bench.offer(RED, 2)
    assert bench.color == "red", "a person said retry"


def test_without_a_receipt_and_without_a_daemon_it_was_an_outage():
    bench = on_green()
    bench.offer(RED, 2, receipt=False)
    bench.pass_time(CONFIRM_S)
    bench.pass_time(VERDICT_S - 1)
    assert bench.says() is None
    bench.pass_time(1)
    assert bench.says() == ("rolled-back", "server-unreachable")
    bench.applier.reached()
    assert bench.says() == ("rolled-back", "server-unreachable"), "what is decided stays"


def test_a_reboot_before_the_receipt_brings_the_last_good_document_back():
    bench = on_green()
    bench.offer(RED, 2, receipt=False)
    bench.reboot()
    assert bench.color == "green" and bench.shown[-1] == "green"
    bench.reboot()
    bench.applier.reached()
    assert bench.says() == ("rolled-back", "connectivity-lost")


def test_the_first_document_undone_leaves_the_factory_defaults():
    bench = Bench()
    bench.boot()
    bench.offer(RED, 1, receipt=False)
    bench.reboot()
    assert bench.color == "factory" and bench.applier.running[2] == ""


def test_a_receipt_that_comes_after_the_next_document_still_confirms():
    bench = on_green()
    bench.offer(RED, 2, receipt=False)
    bench.offer(b"[]", 3, receipt=False)
    assert bench.says() == ("rejected", "invalid") and bench.color == "red"
    bench.receipt(2, RED)
    bench.reboot()
    assert bench.color == "red"


def test_a_newer_document_takes_the_place_of_an_unconfirmed_one():
    bench = on_green()
    bench.offer(b'{"color":"blue"}', 2, receipt=False)
    bench.offer(RED, 3, receipt=False)
    bench.receipt(2, b'{"color":"blue"}')
    assert bench.applier.trial[2] == digest_of(RED)
    bench.pass_time(CONFIRM_S)
    assert bench.color == "green" and bench.applier.undone


def test_the_same_document_under_another_revision_is_reported_and_not_applied_again():
    bench = on_green()
    bench.offer(GREEN, 7, receipt=False)
    assert bench.says() == ("applied", "") and bench.applier.running[1] == 7
    assert bench.shown == ["factory", "green"]


def fail(*_):
    raise ValueError("no such colour")


def refused(state, reason, document=RED, source=None, digest=None, **hooks):
    bench = on_green()
    bench.hooks.update(hooks)
    bench.boot()
    bench.offer(document, 2, source, digest, receipt=False)
    assert bench.says() == (state, reason), bench.applier.report
    bench.hooks.clear()
    assert bench.color == "green"
    assert bench.reboot().config["color"] == "green"
    assert bench.says() == (None if state == "rejected" else (state, reason))
    return bench


def test_a_document_that_the_check_refuses_changes_nothing():
    bench = refused("rejected", "invalid", check=fail)
    assert "red" not in bench.shown


def test_a_failing_function_undoes_the_document():
    async def fail_later(new, old):
        await asyncio.sleep(0)
        if new["color"] == "red":
            fail()

    refused("rolled-back", "hook-failed", on_config=fail_later)


def test_a_failing_health_check_undoes_the_document():
    refused("rolled-back", "health-failed", health=lambda config: False)
    refused("rolled-back", "health-failed", health=fail)


def test_the_message_of_a_failure_is_reported():
    bench = on_green()
    bench.hooks["check"] = fail
    bench.boot()
    bench.offer(RED, 2, receipt=False)
    assert bench.applier.report["errors"] == [{"pointer": "", "message": "no such colour"}]


def test_a_function_that_does_not_return_is_ended_with_the_time_to_confirm():
    async def hang(new, old):
        if new["color"] == "red":
            bench.now += CONFIRM_S
            await asyncio.sleep(3600)

    bench = on_green()
    bench.hooks["on_config"] = hang
    bench.boot()
    bench.applier._clock = lambda: bench.now if bench.color == "green" else 1000 + CONFIRM_S - 0.05
    bench.offer(RED, 2, receipt=False)
    assert bench.says() == ("rolled-back", "hook-timeout") and bench.color == "green"


def test_a_function_that_hangs_at_start_does_not_keep_the_board_from_its_daemon():
    from henge_micro import applier

    async def hang(new, old):
        await asyncio.sleep(3600)

    applier.HAND_OVER_S = 0.05
    bench = on_green()
    bench.hooks["on_config"] = hang
    bench.reboot()
    assert bench.color == "green" and bench.applier.running[2] == digest_of(GREEN)


def test_flash_that_cannot_note_the_receipt_undoes_the_document():
    from henge_micro.wire import encode

    bench = on_green()
    bench.offer(RED, 2, receipt=False)
    bench.flash.left = 0
    bench.receipt(2, RED)
    assert bench.says() == ("rolled-back", "write-failed") and bench.color == "green"
    assert b"Errno 5" in encode(bench.applier.report)
    bench.reboot()
    assert bench.color == "green"


def test_a_wrong_digest_is_refused():
    refused("rejected", "digest-mismatch", digest=digest_of(GREEN + b" "))


def test_what_is_no_json_is_refused():
    refused("rejected", "not-json", b"{nonsense}")
    refused("rejected", "not-json", b"")


def test_what_is_no_object_is_refused():
    refused("rejected", "invalid", b"[1,2]")


def test_a_body_that_breaks_off_changes_nothing_and_is_no_verdict():
    bench = on_green()
    for cut in (0, 1, 511, 512, 513, len(RED) - 1):
        try:
            bench.offer(RED, 2, Source(RED, cut))
            raise AssertionError("a cut body was taken")
        except Trouble as error:
            assert error.code == "unreachable"
        assert bench.says() is None and bench.color == "green"
    assert bench.reboot().config["color"] == "green"


def test_a_document_beyond_the_limit_is_refused_before_anything_is_written():
    bench = on_green()
    bench.flash.left = 0
    bench.applier.max_document = len(RED) - 1
    bench.offer(RED, 2, receipt=False)
    assert bench.says() == ("rejected", "too-large") and bench.flash.left == 0


def test_a_document_that_the_heap_cannot_hold_is_refused_before_anything_is_written():
    import gc

    bench = on_green()
    bench.flash.left = 0
    bench.applier.max_document = 1 << 30
    gc.collect()
    size = gc.mem_free() // 4
    head = {"epoch": "e1", "revision": 2, "digest": digest_of(b""), "size": size, "confirm_s": CONFIRM_S}
    asyncio.run(bench.applier.take(head, Source(b"")))
    assert bench.says() == ("rejected", "too-large") and bench.flash.left == 0


def test_full_flash_is_told_and_keeps_the_last_good_document():
    for system in (os.VfsLfs2, os.VfsFat):
        bench = on_green(flash=Flash(system, 60 if system is os.VfsFat else 20))
        big = b'{"color":"red","text":"' + b"r" * 13000 + b'"}'
        while True:
            try:
                with open("/flash/ballast", "ab") as file:
                    file.write(b"x" * 512)
            except OSError:
                break
        bench.offer(big, 2, receipt=False)
        assert bench.says() == ("rejected", "write-failed"), bench.applier.report
        assert bench.reboot().config["color"] == "green"


def test_damaged_flash_costs_a_delivery_and_no_start():
    bench = on_green()
    with open("/flash/henge/document.a", "r+b") as file:
        file.write(b"?")
    bench.reboot()
    assert bench.color == "factory" and bench.applier.running[2] == "", "the daemon will send it again"
    with open("/flash/henge/progress", "r+b") as file:
        file.write(b"?")
    bench.reboot()
    assert bench.color == "factory"


def test_a_last_good_document_that_the_heap_cannot_hold_any_more_does_not_stop_the_board():
    from henge_micro import store

    def no_memory(file):
        if file.tell() == 0:  # a document; a record is small, and its digest was read before
            raise MemoryError
        return json.load(file)

    bench = on_green()
    store.json, json = Json(no_memory), store.json
    try:
        bench.reboot()
    finally:
        store.json = json
    assert bench.color == "factory" and bench.applier.running[2] == ""


class Json:
    """The module, with a load that fails."""

    def __init__(self, load):
        import json

        self.load, self.loads, self.dumps = load, json.loads, json.dumps


def cut_everywhere(system):
    """What is there after each cut, as (colour, state of the report)."""
    bench = on_green(flash=Flash(system))
    bench.flash.unmount()
    image, seen, cut = bench.flash.image(), set(), 0
    while True:
        bench.flash.restore(image)
        bench.flash.mount()
        bench.boot()
        bench.flash.left = cut
        bench.offer(RED, 2)
        over = bench.flash.left > 0
        bench.reboot()
        seen.add((bench.color, bench.applier.report and bench.applier.report["state"]))
        assert bench.applier.config["text"] in ("g" * 900, "r" * 1700), "half a document"
        if bench.applier.report:
            bench.offer(RED, 2)
            assert bench.color == "green" and bench.says() is None, "quarantined, and the daemon knows"
        bench.offer(RED, 2)
        assert bench.reboot().config["color"] == "red", "it cannot be applied after a cut before write %d" % cut
        bench.flash.unmount()
        if over:
            return seen, cut
        cut += 1


def test_power_cut_at_every_write_of_littlefs_leaves_the_old_document_or_the_new():
    seen, cuts = cut_everywhere(os.VfsLfs2)
    assert seen == {("green", None), ("green", "rolled-back"), ("red", None)} and cuts > 20, (seen, cuts)


def test_power_cut_at_every_write_of_fat_leaves_the_old_document_or_the_new():
    seen, cuts = cut_everywhere(os.VfsFat)
    assert seen == {("green", None), ("green", "rolled-back"), ("red", None)} and cuts > 15, (seen, cuts)
