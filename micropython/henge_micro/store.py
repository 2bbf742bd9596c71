"""What a board remembers in its flash, so that a power cut at any write leaves the old or the new, never half.

Small records (``identity``, ``progress``, ``seen``) are JSON under a digest: written beside, read back, renamed. FAT
loses the old file before it has the new one's name; then the one beside is whole, and reading finds it there.
Documents lie in slots ``a``, ``b`` and ``c``; a record says which one counts, so the others may be half written.
"""

import hashlib
import json
import os

from henge_micro.wire import digest_of

PIECE_BYTES = 512


class Store:
    """Records and document slots in one folder; ``OSError`` when the flash takes nothing."""

    def __init__(self, folder):
        self._folder = folder
        try:
            os.mkdir(folder)
        except OSError:
            pass  # it is there, or the first write will say what is wrong

    def load(self, name):
        """The record, or None if there is none that is whole."""
        path = self._path(name)
        record = _read(path)
        if record is None:
            record = _read(path + ".tmp")
            if record is not None:  # cut between the two halves of a rename on FAT
                _remove(path)
                os.rename(path + ".tmp", path)
        return record

    def keep(self, name, record):
        """Replace the record; it is durable when this returns, and ``OSError`` leaves the old one."""
        path = self._path(name)
        data = json.dumps(record).encode()
        with open(path + ".tmp", "wb") as file:
            file.write(digest_of(data).encode() + b"\n" + data)
        del data
        if _read(path + ".tmp") is None:
            raise OSError("flash does not hold " + name)
        os.rename(path + ".tmp", path)

    def forget(self, name):
        """Remove a record for good."""
        _remove(self._path(name) + ".tmp")
        _remove(self._path(name))

    def document(self, slot):
        """The path of a document slot."""
        return self._path("document." + slot)

    def read_document(self, slot, digest):
        """The value in a slot, or None if it is not the one with this digest, or too large for what heap is left."""
        try:
            with open(self.document(slot), "rb") as file:
                if _hash(file) != digest:
                    return None
                file.seek(0)
                return json.load(file)
        except (OSError, ValueError, MemoryError):
            return None

    def _path(self, name):
        return self._folder + "/" + name


def _read(path):
    try:
        with open(path, "rb") as file:
            digest = file.read(65)
            if _hash(file).encode() + b"\n" != digest:
                return None
            file.seek(65)
            return json.load(file)
    except OSError:
        return None


def _remove(path):
    try:
        os.remove(path)
    except OSError:
        pass  # it was not there


def _hash(file):
    from binascii import hexlify

    hashed = hashlib.sha256()
    piece = bytearray(PIECE_BYTES)
    while True:
        size = file.readinto(piece)
        if not size:
            return hexlify(hashed.digest()).decode()
        hashed.update(memoryview(piece)[:size])
