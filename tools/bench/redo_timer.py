# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""Redo of many versions of one kind again and again, each on a copy of the page as it was before.

Nothing but the copies and the redo is in the loop, so that with one run without redo the copies'
time can be taken off, and what is left is that of nanoseconds.
"""

import cython

from engine.reconstruct import Reconstruct
from formats import coding


class RedoTimer:
    def __init__(self, version, pages, payloads, lsns):
        """Equally many pages of 8 KiB, as bytes, versions of theirs and LSNs; one at least."""
        self.reconstruct = Reconstruct(version)
        self.count = len(pages)
        self.pages = memoryview(bytearray(b"".join(pages)))
        self.data = memoryview(bytearray(b"".join(payloads)))
        self.lengths = memoryview(bytearray(4 * self.count)).cast("I")
        self.lsns = memoryview(bytearray(8 * self.count)).cast("Q")
        for i in range(self.count):
            self.lengths[i] = len(payloads[i])
            self.lsns[i] = lsns[i]
        self.page = memoryview(bytearray(8192))
        self.reconstruct.part.page = self.page
        self.reconstruct.part.bytes = self.data

    def run(self, rounds, redoes):
        """Go over all of them so many times; without `redoes` only the copies are made."""
        with cython.nogil:
            self._run(rounds, redoes)

    def _run(self, rounds, redoes):
        while rounds > 0:
            pos = 0
            i = 0
            while i < self.count:
                coding.copy(self.page, 0, self.pages, 8192 * i, 8192)
                if redoes:
                    self.reconstruct.apply(
                        self.reconstruct.part, pos, self.lengths[i], self.lsns[i], 0
                    )
                pos += self.lengths[i]
                i += 1
            rounds -= 1
        return 0
