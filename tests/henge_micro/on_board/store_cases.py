"""Records in flash."""

import os

from flash import Flash

from henge_micro.store import Store


def test_a_record_is_kept_and_forgotten():
    flash = Flash(os.VfsLfs2)
    flash.mount()
    store = Store("/flash/henge")
    assert store.load("seen") is None
    store.keep("seen", {"t": 1})
    store.keep("seen", {"t": 2})
    assert Store("/flash/henge").load("seen") == {"t": 2}
    store.forget("seen")
    assert store.load("seen") is None


def test_a_damaged_record_is_none():
    flash = Flash(os.VfsLfs2)
    flash.mount()
    store = Store("/flash/henge")
    store.keep("seen", {"t": 1})
    for damage in (b"", b"\n", b"?" * 64 + b"\n{}", b"\xff" * 200):
        with open("/flash/henge/seen", "wb") as file:
            file.write(damage)
        assert store.load("seen") is None


def test_fat_cut_between_losing_the_old_name_and_giving_the_new_one_is_mended():
    flash = Flash(os.VfsFat)
    flash.mount()
    store = Store("/flash/henge")
    store.keep("seen", {"t": 1})
    os.rename("/flash/henge/seen", "/flash/henge/seen.tmp")
    assert store.load("seen") == {"t": 1}
    assert "seen" in os.listdir("/flash/henge")


def test_what_lies_beside_does_not_count_while_the_record_is_whole():
    flash = Flash(os.VfsLfs2)
    flash.mount()
    store = Store("/flash/henge")
    store.keep("seen", {"t": 1})
    os.rename("/flash/henge/seen", "/flash/henge/seen.tmp")
    store.keep("seen", {"t": 2})
    with open("/flash/henge/seen.tmp", "wb") as file:
        file.write(b"half")
    assert store.load("seen") == {"t": 2}


def test_power_cut_at_every_write_leaves_the_old_record_or_the_new():
    for system in (os.VfsLfs2, os.VfsFat):
        flash = Flash(system)
        flash.mount()
        Store("/flash/henge").keep("seen", {"t": 1})
        flash.unmount()
        image, seen, cut, over = flash.image(), set(), 0, False
        while not over:
            flash.restore(image)
            flash.mount()
            flash.left = cut
            try:
                Store("/flash/henge").keep("seen", {"t": 2})
            except OSError:
                pass
            over = flash.left > 0
            flash.unmount()
            flash.mount()
            seen.add(Store("/flash/henge").load("seen")["t"])
            flash.unmount()
            cut += 1
        assert seen == {1, 2} and cut > 5, (seen, cut)
