import threading
from collections.abc import Sequence
from contextlib import contextmanager

import pytest

from m3_retrievers.encoder.coalesce import Coalesced, _Ticket
from m3_retrievers.errors import TextTooLongError


class Slow:
    """Squares numbers; the first call waits until the others have queued up."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.entered = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, items: Sequence[int]) -> list[int]:
        first = not self.batches
        self.batches.append(list(items))
        if first:
            self.entered.set()
            assert self.go_on.wait(10)
        if -1 in items:
            raise TextTooLongError("minus one")
        return [item * item for item in items]


def run_together(slow: Slow, items: Sequence[int]) -> list[int | Exception]:
    shared = Coalesced(slow)
    results: dict[int, int | Exception] = {}

    def call(place: int, item: int) -> None:
        try:
            results[place] = shared(item)
        except TextTooLongError as error:
            results[place] = error

    threads = [threading.Thread(target=call, args=pair) for pair in enumerate(items)]
    threads[0].start()
    assert slow.entered.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(shared._queue) < len(items) - 1:
        threading.Event().wait(0.001)
    slow.go_on.set()
    for thread in threads:
        thread.join(10)
    return [results[place] for place in range(len(items))]


def test_a_lone_call_runs_alone():
    slow = Slow()
    slow.go_on.set()
    assert Coalesced(slow)(3) == 9
    assert slow.batches == [[3]]


def test_calls_that_wait_share_the_next_batch_and_each_gets_its_own_result():
    slow = Slow()
    assert run_together(slow, [1, 2, 3, 4]) == [1, 4, 9, 16]
    assert slow.batches[0] == [1]
    assert sum(len(batch) for batch in slow.batches) == 4
    assert len(slow.batches) == 2


def test_an_error_reaches_only_the_caller_it_belongs_to():
    results = run_together(Slow(), [1, 2, -1, 4])
    assert [results[0], results[1], results[3]] == [1, 4, 16]
    assert isinstance(results[2], TextTooLongError)


def test_an_error_of_a_lone_call_surfaces():
    slow = Slow()
    slow.go_on.set()
    with pytest.raises(TextTooLongError):
        Coalesced(slow)(-1)


def test_whoever_was_computed_for_does_not_wait_for_the_next_batch():
    second, go_on = threading.Event(), threading.Event()

    def run(items: Sequence[int]) -> list[int]:
        if 2 in items:
            second.set()
            assert go_on.wait(10)
        return list(items)

    shared = Coalesced(run)
    thread = threading.Thread(target=shared, args=(2,))
    thread.start()
    assert second.wait(10)
    waiting = [threading.Thread(target=shared, args=(one,)) for one in (1, 3)]
    for one in waiting:
        one.start()
    while len(shared._queue) < 2:
        threading.Event().wait(0.001)
    go_on.set()
    for one in (thread, *waiting):
        one.join(10)
        assert not one.is_alive()
    assert not shared._busy
    assert not shared._queue


def test_who_leaves_the_queue_leaves_the_turn_to_the_next():
    shared: Coalesced[int, int] = Coalesced(lambda items: list(items))
    gone, following = _Ticket(1), _Ticket(2)
    shared._busy, shared._queue = True, [gone, following]
    shared._hand_over()
    assert gone.leads
    shared._leave(gone)
    assert following.leads
    assert following.woken.is_set()


def test_who_queues_up_before_a_batch_has_its_turn_is_in_it():
    batches: list[list[int]] = []
    asked, granted = threading.Event(), threading.Event()

    @contextmanager
    def turn():
        asked.set()
        assert granted.wait(10)
        yield

    def run(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        return list(items)

    shared = Coalesced(run, turn=turn)
    threads = [threading.Thread(target=shared, args=(one,)) for one in range(3)]
    threads[0].start()
    assert asked.wait(10)
    for one in threads[1:]:
        one.start()
    while len(shared._queue) < 2:
        threading.Event().wait(0.001)
    granted.set()
    for one in threads:
        one.join(10)
    assert [sorted(batch) for batch in batches] == [[0, 1, 2]]
