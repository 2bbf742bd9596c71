"""The store's file, looked at before the engine maps it.

LMDB trusts its file: a page that is cut off ends the process with SIGBUS, a bent bit in a meta page can abort it or
make it reuse pages that are in use. So the whole structure is walked first, by plain reads (a third of a second for
100,000 revisions); what the records say is guarded by their checksums. ``lmdb.verify`` is not used: it refuses a
sound file in which a value became shorter within one commit, and accepts one whose last pages are cut off.
"""

from __future__ import annotations

import struct
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from hengd.room import disk_refusal
from henge_protocol.errors import Internal

_CURE: Final = "put the newest backup of the data folder in its place; nothing was changed"

# LMDB 0.9 on 64 bits, native byte order.
_PAGE: Final = struct.Struct("=QHHHH")
"""Number, padding, flags, end of the pointers to nodes, end of free space."""
_EXTENT: Final = struct.Struct("=QHHI")
"""The same of a large value's first page: the last is how many pages it has."""
_META: Final = struct.Struct("=IIQQ48s48sQQ")
"""Magic, version, address, map size, tree of free pages, tree of names, last page, number of the commit."""
_TREE: Final = struct.Struct("=IHHQQQQQ")
"""Padding (of the tree of free pages: size of a page), flags, depth, three counts of pages, entries, root."""
_NODE: Final = struct.Struct("=HHHH")
"""Size of the value (low, high), flags, size of the key; of a branch the first three are the child's number."""
_ENGINE: Final = (0xBEEFC0DE, 1)
_BRANCH, _LEAF, _OVERFLOW, _META_PAGE = 0x01, 0x02, 0x04, 0x08
_LARGE, _SUBTREE = 0x01, 0x02
_INTEGER_KEYS: Final = 0x08
_NO_PAGE: Final = 2**64 - 1
_FIRST_PAGE: Final = 2
_MAX_DEPTH: Final = 32


class _Foreign(Exception):
    """The file is none of this engine, or not as henge uses it."""


class _Damaged(Exception):
    """The file's structure contradicts itself."""


class _Tree(NamedTuple):
    padding: int
    flags: int
    depth: int
    branches: int
    leaves: int
    overflows: int
    entries: int
    root: int


class _Meta(NamedTuple):
    free: _Tree
    names: _Tree
    last_page: int
    number: int

    @property
    def page_bytes(self) -> int:
        """Size of a page."""
        return self.free.padding


def check_file(file: Path) -> None:
    """Refuse a data file that is not whole, so that it is neither mapped nor made anew.

    One fault is beyond it: bit 1 of a commit's number, after which the store is, whole, as it was one commit before.
    Raises ``Internal``: ``storage_foreign`` for what is no file of this engine, ``storage_corrupt`` for what is cut
    off or damaged; ``disk_refusal`` if it cannot be read.
    """
    try:
        with open(file, "rb") as data:
            _Walk(data, _newest_meta(data)).walk()
    except _Foreign as error:
        raise Internal("storage_foreign", f"{file} is not a store of henge ({error})", cure=_CURE) from None
    except _Damaged as error:
        raise Internal("storage_corrupt", f"{file} is damaged or cut off ({error})", cure=_CURE) from None
    except OSError as error:
        raise disk_refusal(error, f"{file} cannot be read") from error


def _newest_meta(data: BinaryIO) -> _Meta:
    """The meta page in force, after comparing both."""
    first = _read_meta(data, 0, at=0)
    if first.page_bytes not in (1 << bits for bits in range(9, 16)):
        raise _Foreign(f"pages of {first.page_bytes} bytes")
    second = _read_meta(data, 1, at=first.page_bytes)
    if abs(first.number - second.number) > 1 or first.number % 2 or not (second.number % 2 or first.number == 0):
        raise _Damaged("its last two commits do not follow each other")
    newest = max(first, second, key=lambda meta: meta.number)
    if (newest.free.flags, newest.names.flags, newest.names.padding) != (_INTEGER_KEYS, 0, 0):
        raise _Foreign("its flags are not those of henge")
    if first.page_bytes != second.page_bytes or newest.last_page < _FIRST_PAGE - 1:
        raise _Damaged("its meta pages are bent")
    return newest


def _read_meta(data: BinaryIO, number: int, *, at: int) -> _Meta:
    data.seek(at)
    page = data.read(_PAGE.size + _META.size)
    if len(page) < _PAGE.size + _META.size:
        raise _Foreign("it has no two meta pages")
    its_number, _, flags, _, _ = _PAGE.unpack_from(page)
    magic, version, _, _, free, names, last_page, commit = _META.unpack_from(page, _PAGE.size)
    if (magic, version) != _ENGINE or its_number != number or not flags & _META_PAGE:
        raise _Foreign("it has no meta pages of LMDB 0.9")
    return _Meta(_Tree(*_TREE.unpack(free)), _Tree(*_TREE.unpack(names)), last_page, commit)


class _Walk:
    """Every page that can be reached, once, in order of keys; and the list of free pages, which has none of them."""

    def __init__(self, data: BinaryIO, meta: _Meta) -> None:
        self._data = data
        self._meta = meta
        self._bytes = meta.page_bytes
        self._pages = data.seek(0, SEEK_END) // self._bytes
        """Whole pages of the file; only free ones may lie beyond."""
        self._used = bytearray(self._pages)
        self._free: list[bytes] = []
        self._branches = self._leaves = self._overflows = self._entries = 0
        self._last_key: bytes | None = None

    def walk(self) -> None:
        """Raise at the first fault."""
        subtrees: list[_Tree] = []
        self._walk_tree(self._meta.free, lists=self._free)
        self._walk_tree(self._meta.names, subtrees=subtrees)
        for tree in subtrees:
            if tree.flags or tree.padding:
                raise _Foreign("its databases are not those of henge")
            self._walk_tree(tree)
        known = sum(self._used) + sum(map(self._check_free, self._free))
        if self._meta.last_page - known > 2 * self._pages:
            raise _Damaged(f"it should have {self._meta.last_page + 1} pages, {known} are known")

    def _walk_tree(self, tree: _Tree, *, lists: list[bytes] | None = None, subtrees: list[_Tree] | None = None) -> None:
        self._branches = self._leaves = self._overflows = self._entries = 0
        self._last_key = None
        if tree.root != _NO_PAGE:
            self._walk_page(tree, tree.root, 1, lists, subtrees)
        found = (self._branches, self._leaves, self._overflows, self._entries)
        if tree[3:7] != found or (tree.root == _NO_PAGE) != (tree.depth == 0):
            raise _Damaged(f"its counts are {tree[3:7]}, found are {found}")

    def _walk_page(
        self, tree: _Tree, number: int, depth: int, lists: list[bytes] | None, subtrees: list[_Tree] | None
    ) -> None:
        page, flags, nodes = self._nodes_of(number)
        if depth > min(tree.depth, _MAX_DEPTH) or (flags == _LEAF) != (depth == tree.depth):
            raise _Damaged(f"page {number} is not where its tree has it")
        if len(nodes) < (2 if flags == _BRANCH and lists is None else 1):
            raise _Damaged(f"page {number} is empty")
        self._branches += flags == _BRANCH
        self._leaves += flags == _LEAF
        for at in nodes:
            low, high, node_flags, key_bytes = _NODE.unpack_from(page, at)
            value_at = at + _NODE.size + key_bytes
            if value_at > self._bytes:
                raise _Damaged(f"a key leaves page {number}")
            if flags == _BRANCH:
                self._walk_page(tree, low | high << 16 | node_flags << 32, depth + 1, lists, subtrees)
                continue
            self._take_key(page[at + _NODE.size : value_at], number, is_number=lists is not None)
            value = self._value(page, number, value_at, low | high << 16, node_flags, whole=lists is not None)
            if lists is not None:
                lists.append(value)
            elif node_flags & _SUBTREE:
                if subtrees is None or len(value) != _TREE.size:
                    raise _Damaged(f"page {number} has a tree where none can be")
                subtrees.append(_Tree(*_TREE.unpack(value)))

    def _nodes_of(self, number: int) -> tuple[bytes, int, tuple[int, ...]]:
        """A page of a tree, its kind, and where its nodes begin."""
        page = self._take(number, 1)
        its_number, _, flags, pointers_end, free_end = _PAGE.unpack_from(page)
        if its_number != number or flags not in (_BRANCH, _LEAF):
            raise _Damaged(f"page {number} is none of a tree")
        if not _PAGE.size <= pointers_end <= free_end <= self._bytes:
            raise _Damaged(f"page {number} has no sound frame")
        nodes = struct.unpack_from(f"={(pointers_end - _PAGE.size) // 2}H", page, _PAGE.size)
        if any(not free_end <= at <= self._bytes - _NODE.size for at in nodes):
            raise _Damaged(f"a node leaves page {number}")
        return page, flags, nodes

    def _take(self, number: int, count: int) -> bytes:
        """Mark pages as used; the first of them."""
        if not _FIRST_PAGE <= number <= self._meta.last_page + 1 - count:
            raise _Damaged(f"page {number} is referred to, {self._meta.last_page} is the last")
        if number + count > self._pages:
            raise _Damaged(f"it ends after {self._pages} pages, page {number + count - 1} is in use")
        if any(self._used[number : number + count]):
            raise _Damaged(f"page {number} is used twice")
        self._used[number : number + count] = b"\x01" * count
        self._data.seek(number * self._bytes)
        return self._data.read(self._bytes)

    def _take_key(self, key: bytes, number: int, *, is_number: bool) -> None:
        if is_number:
            key = struct.pack(">Q", *struct.unpack("=Q", key)) if len(key) == 8 else b""
        if not key or (self._last_key is not None and key <= self._last_key):
            raise _Damaged(f"the keys of page {number} are not in order")
        self._last_key = key
        self._entries += 1

    def _value(self, page: bytes, number: int, at: int, size: int, flags: int, *, whole: bool) -> bytes:
        """A value; of a large one only its pages are taken, unless the whole is wanted."""
        end = at + (8 if flags & _LARGE else size)
        if flags not in (0, _LARGE, _SUBTREE) or end > self._bytes:
            raise _Damaged(f"a value leaves page {number}")
        if not flags & _LARGE:
            return page[at : at + size]
        (begin,) = struct.unpack_from("=Q", page, at)
        if not _FIRST_PAGE <= begin < self._pages:
            raise _Damaged(f"page {begin} is referred to, {self._pages - 1} is the last")
        self._data.seek(begin * self._bytes)
        its_number, _, kind, count = _EXTENT.unpack(self._data.read(_EXTENT.size))
        if its_number != begin or kind != _OVERFLOW or not 0 <= size <= count * self._bytes - _EXTENT.size:
            raise _Damaged(f"page {begin} does not begin a value of {size} bytes")
        self._take(begin, count)
        self._overflows += count
        self._data.seek(begin * self._bytes + _EXTENT.size)
        return self._data.read(size) if whole else b""

    def _check_free(self, listed: bytes) -> int:
        """A list of free pages: how many, then their numbers; how many they are."""
        numbers = struct.unpack(f"={len(listed) // 8}Q", listed[: len(listed) // 8 * 8])
        if not numbers or numbers[0] > len(numbers) - 1:
            raise _Damaged("a list of free pages is cut off")
        for number in numbers[1 : numbers[0] + 1]:
            if not _FIRST_PAGE <= number <= self._meta.last_page or (number < self._pages and self._used[number]):
                raise _Damaged(f"page {number} is free and in use")
        return int(numbers[0])
