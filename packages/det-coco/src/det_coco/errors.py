"""The one error of this package."""


class DataError(ValueError):
    """Something is wrong with the data or with how it is asked for.

    The message is one or more full sentences: which file, image or annotation, what was expected, what came, and
    what to do. A program may print it as it is and stop.
    """
