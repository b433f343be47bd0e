"""The error of one request that cannot be answered; the others of its batch go on."""


class RequestError(Exception):
    """Unknown relation, LSN below the horizon, block past the end, foreign chunk, unreadable page.

    The text goes to the client as it is: it names what, where, expected and found.
    """
