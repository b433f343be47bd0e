# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""What transactions leave in pg_xact and pg_commit_ts when they end.

A COMMIT or ABORT sets the status of its transaction and of the subtransactions that it lists, one
effect a page; where the cluster tracks commit timestamps, a COMMIT leaves its time and its
replication origin for each of them, too (TransactionTreeSetCommitTsData, commit_ts.c). Those that
drop files, come from an origin or were prepared are engine/transaction_records.py's, which comes
back here for the same two. Each end of a transaction says when it was; the times are kept as
versions of a chunk of their own, which engine/commit_times.py reads.
"""

from formats import coding

# In the code: 32768 transactions a page of pg_xact (clog.c), 819 of pg_commit_ts (commit_ts.c);
# 10000 microseconds between TIME versions, whose kind is 65, of the chunk kind 4.


class TransactionIngest:
    def __init__(self, target):
        self.target = target
        self.tracks_timestamps = False
        self.stored_time = 0  # the last TIME version's, and its LSN
        self.stored_lsn = 0

    def pages_of_transaction(self, batch, i):
        """No fewer than the SLRU pages that a transaction's record changes."""
        self._find_subtransactions(batch, i)
        pages = 2
        previous = batch.xid[i] // 819
        k = 0
        while k < self.sub_count:
            page = coding.u32(batch.data, self.sub_pos + 4 * k) // 819
            pages += 2 * (page != previous)
            previous = page
            k += 1
        return pages

    def _find_subtransactions(self, batch, i):
        """Set `xinfo`, and `sub_pos` and `sub_count` of a COMMIT or ABORT, prepared or not."""
        pos = batch.main_pos[i] + 8
        end = batch.main_pos[i] + batch.main_length[i]
        operation = batch.info[i] & 112
        self.xinfo = 0
        self.sub_pos = pos
        self.sub_count = 0
        if batch.info[i] & 128 == 0 or operation == 16 or operation > 64:
            return 0
        self.xinfo = coding.u32(batch.data, pos)
        pos += 12 if self.xinfo & 1 else 4
        if self.xinfo & 2:
            self.sub_count = coding.u32(batch.data, pos)
            pos += 4
        if pos + 4 * self.sub_count > end:
            raise ValueError("transaction record: its subtransactions are cut off")
        self.sub_pos = pos
        return 0

    def end_transaction(self, batch, i, info, lsn):
        """COMMIT and ABORT of a transaction and its subtransactions (xact.h); 1: left to Python."""
        operation = info & 112
        if operation == 80 or operation == 96:  # ASSIGNMENT, INVALIDATIONS
            return 0
        if operation != 16:  # PREPARE
            self._note_time(batch, i, lsn)
        if operation != 0 and operation != 32:
            return 1
        self._find_subtransactions(batch, i)
        if self.xinfo & 4 or self.xinfo & 32:  # files to drop; a replication origin
            return 1
        xid = batch.xid[i]
        if xid == 0:
            return 0
        status = 1 if operation == 0 else 2
        self.set_status(xid, batch.data, self.sub_pos, self.sub_count, status, lsn)
        if status == 1 and self.tracks_timestamps:
            low = coding.u32(batch.data, batch.main_pos[i])
            high = coding.u32(batch.data, batch.main_pos[i] + 4)
            self.set_timestamp(xid, batch.data, self.sub_pos, self.sub_count, 0, low, high, lsn)
        return 0

    def _note_time(self, batch, i, lsn):
        """A TIME version for a transaction's end, unless the last one says as much.

        The record of the last one itself may come again, into another memtable than before.
        """
        if batch.main_length[i] < 8:
            raise ValueError("transaction record: its time is cut off")
        time = coding.u64(batch.data, batch.main_pos[i])
        if time >> 63 or (time < self.stored_time + 10000 and lsn != self.stored_lsn):
            return 0
        length = lsn - batch.lsn_start[i]
        chunk = self.target.chunks.intern(4, 0, 0, 0, 0, 0)
        pos = self.target.memtable.reserve(16)
        coding.put_u64(self.target.memtable.data, pos, (length << 32) | 65)
        coding.put_u64(self.target.memtable.data, pos + 8, time)
        self.stored_time = time
        self.stored_lsn = lsn
        return self.target.memtable.link(chunk, 0, lsn, pos, 16, 1)

    def set_status(self, xid, data, pos, count, status, lsn):
        """CLOG_SET effects, one a page, for `xid` and the `count` xids at data[pos:]."""
        done = 0
        while done <= count:
            first = xid if done == 0 else coding.u32(data, pos + 4 * (done - 1))
            run = self._run(first // 32768, 32768, data, pos + 4 * done, count - done)
            chunk = self._page(0, first // 32768, lsn)
            if self.target.chunks.held[chunk]:
                effect = self.target.begin_effect(3, run)
                self.target.effect_item(effect, 0, first & 32767, status, 0)
                self._items(effect, 1, 32768, status, data, pos + 4 * done, run - 1)
                self.target.link_effect(chunk, first // 32768 & 31, lsn, effect, run)
            done += run
        return 0

    def set_timestamp(self, xid, data, pos, count, origin, low, high, lsn):
        """COMMIT_TIMESTAMP effects, one a page, for the same; `low` and `high` are the halves of a
        time in microseconds since 2000."""
        done = 0
        while done <= count:
            first = xid if done == 0 else coding.u32(data, pos + 4 * (done - 1))
            page = first // 819
            run = self._run(page, 819, data, pos + 4 * done, count - done)
            chunk = self._page(3, page, lsn)
            if self.target.chunks.held[chunk]:
                effect = self.target.begin_effect(6, run + 2)
                self.target.effect_item(effect, 0, 0, origin, low)
                self.target.effect_item(effect, 1, 0, 0, high)
                self.target.effect_item(effect, 2, first % 819, 0, 0)
                self._items(effect, 3, 819, 0, data, pos + 4 * done, run - 1)
                self.target.link_effect(chunk, page & 31, lsn, effect, run + 2)
            done += run
        return 0

    def _run(self, page, per_page, data, pos, count):
        """One more than how many of the `count` xids at `pos` are in the same SLRU page."""
        run = 0
        while run < count and coding.u32(data, pos + 4 * run) // per_page == page:
            run += 1
        return run + 1

    def _page(self, slru, page, lsn):
        chunk = self.target.touch_slru(slru, page, lsn)
        if self.target.memtable.newest_lsn(chunk, page & 31) == lsn:
            raise ValueError("transaction record: its subtransactions are not in order")
        return chunk

    def _items(self, effect, item, per_page, argument, data, pos, count):
        while count > 0:
            self.target.effect_item(effect, item, coding.u32(data, pos) % per_page, argument, 0)
            item += 1
            pos += 4
            count -= 1
        return 0
