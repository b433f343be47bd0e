# cython: annotation_typing=False, wraparound=False, initializedcheck=False
"""What all fuzzed kernels have in common: the loop over inputs, and the count of what they led to.

    make       build the input `index` of a seed: mutator.data[:mutator.length]
    execute    give it to the code under test; answers an outcome, a small number
    place      shared with the parent process: place[0] is the index of the input that runs now, so
               that a crash or a hang names it

The loop runs without the GIL; only an error takes it. Errors that the code under test documents
are counted by their text; any other ends the run, with `index` at the input that did it.
"""

import re
from array import array

import cython

from formats.errors import CorruptionError

OUTCOMES_MAX = 32
ACCEPTED = 0
TEXTS_MAX = 250
_PARTICULARS = re.compile(r"[0-9'\"]")  # a kind of error is what its text says before them
STRETCH = 4096  # inputs between two calls of `refresh`


def room(size):
    """Memory of so many bytes, and not one more: a bytearray has one behind its end, where a
    sanitizer would not see an access that is off by one."""
    return memoryview(array("B", bytes(size)))


class Target:
    outcomes: memoryview
    errors: dict[str, int]

    def __init__(self, mutator, place):
        self.mutator = mutator
        self.place = place
        self.outcomes = memoryview(bytearray(8 * OUTCOMES_MAX)).cast("Q")
        self.errors = {}
        self.index = 0
        self.making = False

    def run(self, seed, first, count):
        """Inputs first .. first + count of a seed."""
        self.index = first
        while self.index < first + count:
            self.refresh()
            end = min(first + count, self.index + STRETCH)
            while self.index < end:
                try:
                    with cython.nogil:
                        self._run(seed, end)
                except (CorruptionError, ValueError, IndexError) as error:
                    if self.making:
                        raise RuntimeError("the input could not be made") from error
                    self._count(error)
                    self.index += 1

    def input(self, seed, index):
        """The bytes of one input, which is not run."""
        self.mutator.begin(seed, index)
        self.make(self.mutator)
        return self.mutator.content()

    def run_input(self, content):
        """Run these bytes as an input."""
        self.refresh()
        self.making = False
        self.mutator.begin(0, 0)
        self.mutator.put(content)
        try:
            self.outcomes[self.execute(self.mutator)] += 1
        except (CorruptionError, ValueError, IndexError) as error:
            self._count(error)

    def refresh(self):
        """Forget what would grow from input to input."""

    def _count(self, error):
        text = error.what if isinstance(error, CorruptionError) else str(error)
        text = f"{type(error).__name__}: {_PARTICULARS.split(text)[0][:60].strip()}"
        if len(self.errors) >= TEXTS_MAX and text not in self.errors:
            text = type(error).__name__
        self.errors[text] = self.errors.get(text, 0) + 1

    def _run(self, seed, end):
        while self.index < end:
            self.place[0] = self.index
            self.making = True
            self.mutator.begin(seed, self.index)
            self.make(self.mutator)
            self.making = False
            self.outcomes[self.execute(self.mutator)] += 1
            self.index += 1
        return 0

    def make(self, mutator):
        """Put the next input into the mutator; each target has its own."""
        raise TypeError("a target without inputs")

    def execute(self, mutator):
        """Run the mutator's input: the index of the outcome to count; each target has its own."""
        raise TypeError("a target that runs nothing")
