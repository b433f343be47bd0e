# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""The store's lock: Python takes it like a threading.Lock, kernels take it without the GIL.

Whoever waits for it lets go of the GIL first, so its holder may want the GIL at any time; but then
everybody waits for the GIL with it, so whoever can has both for microseconds. There is no
fairness, and no thread may take it twice.
"""

import cython


class StoreLock:
    def __init__(self):
        # A C type: Cython makes the compiled one together with the object, and accepts no other.
        if not cython.compiled:
            self.mutex = cython.pythread_type_lock()

    def enter(self):
        self.mutex.acquire()
        return 0

    def leave(self):
        self.mutex.release()
        return 0

    def acquire(self):
        """As `enter`; this and what follows is what threading.Condition asks of a lock."""
        self.mutex.acquire()
        return True

    def release(self):
        self.mutex.release()

    def __enter__(self):
        self.mutex.acquire()
        return True

    def __exit__(self, *exception):
        self.mutex.release()

    def _is_owned(self):
        return self.mutex.locked()
