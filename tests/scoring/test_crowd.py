"""Threads that take turns on the processors: one each, or all of them for one."""

import os
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from m3_retrievers import scoring
from m3_retrievers.scoring import late_interaction
from m3_retrievers.scoring.crowd import Crowd, crowd
from m3_retrievers.types.packed import MultiVectors

SOON = 30


def until(condition) -> None:
    for _ in range(SOON * 1_000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it did not come to it")


class Caller:
    """A thread that has a turn, and gives it back when it is told to."""

    def __init__(self, crowd: Crowd, *, whole: bool = False) -> None:
        self.crowd = crowd
        self.inside, self.go = threading.Event(), threading.Event()
        self.threads = 0  # how many PyTorch computes with
        self.where: threading.Thread | None = None
        self.thread = threading.Thread(target=self._all if whole else self._one, daemon=True)
        self.thread.start()

    def _one(self) -> None:
        self.crowd.on_one_processor(self._work)

    def _all(self) -> None:
        with self.crowd.all_processors():
            self._work()

    def _work(self) -> None:
        self.threads, self.where = torch.get_num_threads(), threading.current_thread()
        self.inside.set()
        assert self.go.wait(SOON)

    def leave(self) -> None:
        self.go.set()
        self.thread.join(SOON)
        assert not self.thread.is_alive()


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("two_threads")
def test_one_alone_computes_where_it_is_and_with_its_team():
    one = Caller(Crowd(2))
    assert one.inside.wait(SOON)
    assert (one.where, one.threads) == (one.thread, 2)
    one.leave()


@pytest.mark.usefixtures("two_threads")
def test_the_others_compute_in_threads_without_a_team_and_leave_theirs_as_it_was():
    crowd = Crowd(2)
    callers = [Caller(crowd), Caller(crowd)]
    for one in callers:
        assert one.inside.wait(SOON)
    assert sorted(one.threads for one in callers) == [1, 2]
    for one in callers:
        one.leave()
    found = []
    new = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    new.start()
    new.join(SOON)
    assert found == [torch.get_num_threads()] == [2]


def test_no_more_compute_at_once_than_there_are_processors_first_come_first_served():
    crowd = Crowd(2)
    callers = [Caller(crowd), Caller(crowd)]
    for one in callers:
        assert one.inside.wait(SOON)
    for waiting in (1, 2):
        callers.append(Caller(crowd))
        until(lambda waiting=waiting: len(crowd._queue) == waiting)
    for at in (0, 1):
        assert not callers[at + 2].inside.is_set()
        callers[at].leave()
        assert callers[at + 2].inside.wait(SOON)
    for one in callers[2:]:
        one.leave()


def test_who_wants_all_processors_waits_for_the_others_and_they_for_it():
    crowd = Crowd(2)
    first = Caller(crowd)
    assert first.inside.wait(SOON)
    whole = Caller(crowd, whole=True)
    until(lambda: len(crowd._queue) == 1)
    # one processor is free, but it came later
    last = Caller(crowd)
    until(lambda: len(crowd._queue) == 2)
    first.leave()
    assert whole.inside.wait(SOON)
    assert not last.inside.is_set()
    whole.leave()
    last.leave()


def test_an_error_reaches_its_caller_and_gives_the_turn_back():
    crowd = Crowd(2)
    other = Caller(crowd)
    assert other.inside.wait(SOON)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            crowd.on_one_processor(lambda: 1 // 0)
    other.leave()
    with pytest.raises(ZeroDivisionError), crowd.all_processors():
        raise ZeroDivisionError
    assert crowd._free == 2


def test_parts_run_side_by_side_where_nobody_else_computes():
    together = threading.Barrier(2)
    Crowd(2).side_by_side(lambda _: together.wait(SOON), [0, 1])  # each waits for the other


def test_parts_run_one_after_the_other_beside_somebody():
    crowd, done, threads = Crowd(2), [], set()
    other = Caller(crowd)
    assert other.inside.wait(SOON)

    def part(number):
        done.append(number)
        threads.add(threading.get_ident())

    crowd.side_by_side(part, [0, 1, 2])
    other.leave()
    assert done == [0, 1, 2]
    assert threads == {threading.get_ident()}


@pytest.mark.parametrize("failing", [0, 1])
def test_a_part_that_fails_is_heard_of_when_the_others_are_done(failing):
    crowd, done = Crowd(2), []

    def part(number):
        if number == failing:
            raise ZeroDivisionError
        done.append(number)

    with pytest.raises(ZeroDivisionError):
        crowd.side_by_side(part, [0, 1])
    assert done == [1 - failing]
    assert crowd._free == 2


def test_who_is_interrupted_while_it_waits_leaves_the_queue(monkeypatch):
    crowd = Crowd(2)
    other = Caller(crowd)
    assert other.inside.wait(SOON)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("m3_retrievers.scoring.crowd._Ticket.wait", interrupted)
        with pytest.raises(KeyboardInterrupt), crowd.all_processors():
            pass
    assert not crowd._queue
    other.leave()
    assert crowd._free == 2


def test_with_one_thread_there_are_no_teams_and_everybody_goes_ahead():
    crowd = Crowd(1)
    callers = [Caller(crowd), Caller(crowd, whole=True), Caller(crowd)]
    for one in callers:
        assert one.inside.wait(SOON)
        assert one.where is one.thread
    for one in callers:
        one.leave()


def test_scores_of_a_crowd_are_those_of_one_alone(monkeypatch):
    own = Crowd(2)
    monkeypatch.setattr(late_interaction, "crowd", lambda: own)
    rng = np.random.default_rng(0)

    def pack(*lengths: int) -> MultiVectors:
        rows = [rng.standard_normal((length, 64)).astype(np.float32) for length in lengths]
        return MultiVectors.from_rows(rows)

    queries, documents = pack(5, 17), pack(*range(200))
    alone = scoring.maxsim(queries, documents)
    found: list[np.ndarray] = []
    threads = [
        threading.Thread(target=lambda: found.append(scoring.maxsim(queries, documents)))
        for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(found) == 6
    for one in found:
        np.testing.assert_allclose(one, alone, atol=1e-6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_forked_while_others_compute_has_its_own_turns():
    callers = [Caller(crowd()), Caller(crowd())]
    assert callers[0].inside.wait(SOON)
    child = os.fork()
    if not child:
        os._exit(0 if crowd().on_one_processor(lambda: 3) == 3 else 1)
    for one in callers:
        one.leave()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.slow  # a process that imports torch
def test_threads_that_outlive_the_main_thread_go_on():
    code = """
import threading
from m3_retrievers.scoring.crowd import Crowd

crowd, main = Crowd(2), threading.main_thread()

def ask():
    main.join()
    with crowd.all_processors():
        pass
    together.wait(10)
    print(f"{crowd.on_one_processor(lambda: together.wait(10) >= 0)}\\n", end="")

together = threading.Barrier(2)
for _ in range(2):
    threading.Thread(target=ask).start()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("True\nTrue\n", "")
