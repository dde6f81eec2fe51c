"""SIGUSR2 ends a rank at once where all is saved, and is a mark elsewhere."""

import os
import signal

import pytest

from fcn.stop import StopRequest

ALIVE = 7


def end_of(program):
    """What becomes of a child that runs this; ALIVE where it comes to its end."""
    child = os.fork()
    if child == 0:
        try:
            program()
        finally:
            os._exit(ALIVE)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def ask():
    os.kill(os.getpid(), signal.SIGUSR2)


def test_at_first_it_ends_the_process_whatever_was_inherited():
    def program():
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
        StopRequest()
        ask()

    assert end_of(program) == -signal.SIGUSR2


def test_with_the_others_it_is_a_mark():
    def program():
        stop = StopRequest()
        stop.agree_with_others()
        assert not stop.asked
        ask()
        if not stop.asked:
            os._exit(1)

    assert end_of(program) == ALIVE


@pytest.mark.parametrize("moment", ["before", "inside", "after"])
def test_where_all_is_saved_it_ends_the_process(moment):
    def program():
        stop = StopRequest()
        stop.agree_with_others()
        if moment == "before":
            ask()
        with stop.leaving_at_once():
            if moment == "inside":
                ask()
        ask()

    assert end_of(program) == (ALIVE if moment == "after" else -signal.SIGUSR2)
