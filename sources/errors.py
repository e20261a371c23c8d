"""What a source raises where it cannot go on: its operator has to put it right, or it may pass by itself."""


class SourceError(RuntimeError):
    """Reading cannot begin or go on; the text is one line that says what is wrong and what to do."""


class SourceUnreachableError(SourceError):
    """What is read from was away for too long; trying again later may help."""
