"""The board: what one process writes, the others read."""

import os

from flows.board import READER_SLOTS, Board


def test_a_child_sees_what_its_parent_writes_and_the_other_way_round() -> None:
    """By a descriptor that it inherits."""
    board = Board.make(2)
    child = os.fork()
    if child == 0:
        other = Board(board.descriptor, 2)
        other.beat(1, 4711)
        other.run(1)
        other.ask_refill(1)
        other.sent(3, 100)
        other.applied(1, 3, 40)
        os._exit(0 if other.draining() else 1)
    board.ask_drain()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) in (0, 1)
    assert (board.beaten_ms(0), board.beaten_ms(1)) == (0, 4711)
    assert (board.is_running(0), board.is_running(1)) == (False, True)
    assert board.refills() == 1
    assert [board.in_flight(slot) for slot in range(READER_SLOTS)] == [0, 0, 0, 60, 0, 0, 0, 0]
    assert Board(board.descriptor, 2).draining()


def test_what_each_process_has_applied_counts() -> None:
    """A slot's bytes are applied by the lanes of all processes."""
    board = Board.make(3)
    board.sent(0, 10)
    for process in range(3):
        board.applied(process, 0, 3)
    assert board.in_flight(0) == 1


def test_a_new_group_begins_with_nothing_but_the_wish_to_end() -> None:
    """Bytes of dead processes would hold their successors back; a drain that was asked for stays asked for."""
    board = Board.make(1)
    board.ask_drain()
    board.beat(0, 5)
    board.run(0)
    board.ask_refill(0)
    board.sent(2, 7)
    board.clear()
    assert (board.beaten_ms(0), board.is_running(0), board.refills(), board.in_flight(2)) == (0, False, 0, 0)
    assert board.draining()
