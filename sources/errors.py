"""The one error that a source raises for what its operator has to put right."""


class SourceError(RuntimeError):
    """Reading cannot begin or go on; the text is one line that says what is wrong and what to do."""
