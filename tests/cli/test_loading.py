"""While code is loaded nothing looks for garbage, and afterwards something does again."""

import gc

import pytest

from cli.loading import loading


def test_what_is_loaded_is_never_looked_at() -> None:
    """Not while it is loaded, nor later; what is made later is."""
    before = gc.get_freeze_count()
    try:
        with loading():
            assert not gc.isenabled()
            made: list[list[int]] = [[] for _ in range(1000)]
        assert gc.isenabled()
        assert gc.get_freeze_count() >= before + len(made)
    finally:
        gc.unfreeze()


def test_garbage_is_looked_for_again_when_loading_failed() -> None:
    """A command that cannot be loaded still tells so, and may go on."""
    try:
        with pytest.raises(ImportError), loading():
            raise ImportError
        assert gc.isenabled()
    finally:
        gc.unfreeze()
