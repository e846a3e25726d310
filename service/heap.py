"""Python's collector of garbage, kept from looking through what lasts as long as the process."""

import gc

FIRST_GENERATION = 5_000
"""New objects between two looks at the newest; 700 by default, which one request's make many times over."""


def settle() -> None:
    """To be called when all that lasts has been made: the collector never looks at what exists now again.

    A full collection of a process with its modules and models takes a tenth of a second, in which no thread of it
    goes on; the objects of requests alone are looked through in a moment.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(FIRST_GENERATION, *gc.get_threshold()[1:])
