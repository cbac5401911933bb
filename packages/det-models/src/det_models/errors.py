"""What a caller did wrong."""


class OptionError(ValueError):
    """A value that this detector cannot be given, or an image that is none; the message says what to give instead."""
