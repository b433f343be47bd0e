"""What the exit statuses of our commands mean; scripts rely on them."""

from enum import IntEnum


class ExitCode(IntEnum):
    OK = 0
    WRONG = 1  # something was found wrong: damage, a request that cannot be answered
    USAGE = 2
    CANNOT_CONNECT = 3
    REFUSED = 4  # the directory is in use, or refused
