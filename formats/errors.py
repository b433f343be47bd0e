"""The errors that formats and the engine raise about bytes they were given."""


class CorruptionError(Exception):
    """Bytes that are not what they must be: says what, where, what was expected and what found.

    `where` is a place a person can go to: a file and offset, an LSN, a chunk and block.
    """

    def __init__(self, what: str, where: str, expected: object, found: object) -> None:
        super().__init__(what, where, expected, found)
        self.what = what
        self.where = where
        self.expected = expected
        self.found = found

    def __str__(self) -> str:
        return f"{self.what} at {self.where}: expected {self.expected}, found {self.found}"
