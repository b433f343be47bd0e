"""Errors that are answers: to one request, or to the wish to open a directory."""


class RequestError(Exception):
    """Unknown relation, LSN below the horizon, block past the end, foreign chunk, unreadable page.

    The text goes to the client as it is: it names what, where, expected and found.
    """


class DirectoryRefusedError(Exception):
    """A data directory that is not what the caller takes it for; nothing in it was changed."""


class IngestStopped(Exception):
    """What ingest waits for does not come; nothing is wrong with the WAL."""
