# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""What one writer changes and readers read, by name for Python and by place for kernels.

All of it is changed and, by kernels, read with `lock` held and whether or not the GIL is: the
attributes here and everything that hangs from them, that is, the columns of the chunk table, of
the open memtable and of the page cache, and which memtable is the open one. Frozen memtables no
longer change, but which they are does. Python may look at a single number without the lock.
"""

from array import array

from engine.page_cache import PageCache
from engine.store_lock import StoreLock

FROZEN_MAX = 2


class StoreState:
    ready_lsn: int
    horizon_lsn: int
    layers_lsn: int
    retained: memoryview

    def __init__(self, table, ingest, cache_bytes):
        """`ingest` has the open memtable."""
        self.lock = StoreLock()
        self.table = table
        self.ingest = ingest
        self.cache = PageCache(cache_bytes)
        self.frozen_newer = None
        self.frozen_older = None
        self.major = 0  # PostgreSQL's version, once it is known
        self.ready_lsn = 0
        self.layers_lsn = 0  # nothing in the layers is newer
        self.horizon_lsn = 0
        self.retained = memoryview(array("Q"))  # LSNs below it that can be read as well, rising
        self.backup_end_lsn = 0
        self.checksums = False  # whether pages carry one
        self.pages_read = 0

    def is_retained(self, lsn):
        """Whether an LSN can be read although it is below the horizon; takes the lock."""
        return bool(self.retains(lsn))

    def has_passed(self, lsn):
        """Whether the horizon has, so that layers may be gone that a read at an LSN needs.

        Where it begins, at the backup's end, it has passed nothing: ingest itself reads below it.
        """
        has_advanced = self.horizon_lsn > self.backup_end_lsn
        return has_advanced and lsn < self.horizon_lsn and not self.retains(lsn)

    def retains(self, lsn):
        """The same for kernels."""
        self.lock.enter()
        try:
            return self._find(self.retained, lsn)
        finally:
            self.lock.leave()

    def _find(self, rising, lsn):
        low = 0
        high = len(rising)
        while low < high:
            middle = (low + high) // 2
            if rising[middle] < lsn:
                low = middle + 1
            else:
                high = middle
        return low < len(rising) and rising[low] == lsn

    def expire(self, lsns, status, states, expired, count):
        """Of `count` requests that were answered, refuse those that the horizon has passed.

        Layers may have been deleted while they were read. The horizon is raised here before that:
        what is not refused was read from all that it takes. `status`: not 0, and the request is
        none; `states[i]` becomes `expired`. Returns how many are refused. See also `has_passed`.
        """
        if self.horizon_lsn <= self.backup_end_lsn:
            return 0
        self.lock.enter()
        try:
            refused = 0
            i = 0
            while i < count:
                if (
                    lsns[i] < self.horizon_lsn
                    and status[i] == 0
                    and not self._find(self.retained, lsns[i])
                ):
                    states[i] = expired
                    refused += 1
                i += 1
            return refused
        finally:
            self.lock.leave()

    @property
    def frozen(self):
        """The memtables that are being flushed, newest first; FROZEN_MAX at most."""
        both = (self.frozen_newer, self.frozen_older)
        return tuple(memtable for memtable in both if memtable is not None)

    @frozen.setter
    def frozen(self, memtables):
        if len(memtables) > FROZEN_MAX:
            raise ValueError("more frozen memtables than readers look into")
        self.frozen_newer, self.frozen_older = (*memtables, None, None)[:FROZEN_MAX]
