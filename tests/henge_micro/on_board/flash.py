"""Flash in memory, with the file systems that boards have, whose power goes off before the n-th write."""

import gc
import os

NEVER = 1 << 30


class Flash:
    """A block device; once ``left`` writes are done, every further one fails and changes nothing."""

    def __init__(self, system, blocks=200, block_bytes=512):
        self._block_bytes = block_bytes
        self._data = bytearray(blocks * block_bytes)
        self._system = system
        self.left = NEVER
        system.mkfs(self)

    def mount(self):
        """Power on."""
        self.left = NEVER
        os.mount(self._system(self), "/flash")

    def unmount(self):
        """Power off: what the file system still holds in memory is lost."""
        try:
            os.umount("/flash")
        except OSError:
            pass
        gc.collect()

    def image(self):
        """What is on the flash."""
        return bytes(self._data)

    def restore(self, image):
        """Put an image back."""
        self._data[:] = image

    def readblocks(self, number, buffer, offset=0):
        """The driver's interface (machine's documentation, os.AbstractBlockDev)."""
        at = number * self._block_bytes + offset
        buffer[:] = memoryview(self._data)[at : at + len(buffer)]

    def writeblocks(self, number, buffer, offset=0):
        """The same."""
        self._spend()
        at = number * self._block_bytes + offset
        memoryview(self._data)[at : at + len(buffer)] = buffer

    def ioctl(self, operation, argument):
        """The same."""
        if operation == 4:
            return len(self._data) // self._block_bytes
        if operation == 5:
            return self._block_bytes
        if operation == 6:
            self._spend()
            self.erase(argument)
        return 0

    def erase(self, number):
        """Flash forgets to ones."""
        at = number * self._block_bytes
        for byte in range(at, at + self._block_bytes):
            self._data[byte] = 0xFF

    def _spend(self):
        if self.left <= 0:
            raise OSError(5)
        self.left -= 1
