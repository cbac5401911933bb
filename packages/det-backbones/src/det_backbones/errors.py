"""What goes wrong with weights files."""


class WeightsError(ValueError):
    """A weights file is missing, damaged, unsafe or of another network; the message says which and what to do."""
