# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""A batch of decoded WAL records, in columns that are allocated once and used again.

`formats.wal_record.RecordColumns` has what the bytes of a record say. What only the reader of the
stream knows is added here: where each record lies in the WAL, and what buffer positions are in.

    data        (of RecordColumns) is the reader's buffer, in which every record is in one piece
    lsn_start   where the record begins
    lsn_end     where it ends, rounded up to 8 bytes: what redo writes into pd_lsn. When the record
                fills its page this is the page's end, below the next page's header; after
                XLOG_SWITCH it is the end of the segment. PostgreSQL calls it EndRecPtr.

All of it is valid until the reader's next `decode` or `feed`.
"""

from formats.wal_record import RecordColumns, column


class RecordBatch(RecordColumns):
    def __init__(self, records_max, references_max):
        RecordColumns.__init__(self, records_max, references_max)
        self.lsn_start = column("Q", records_max)
        self.lsn_end = column("Q", records_max)
