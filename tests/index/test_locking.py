"""Readers together, a writer alone, and neither left waiting; forks beside both."""

import os
import threading

import pytest

from m3_retrievers.index.locking import SharedLock

SOON = 30  # seconds, after which a test fails instead of hanging


def started(function, *args) -> threading.Thread:
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread


def until(condition) -> None:
    for _ in range(SOON * 1_000):
        if condition():
            return
        threading.Event().wait(0.001)
    raise AssertionError("it did not come to it")


def waits(lock: SharedLock, *, readers: int = 0, writers: int = 0) -> None:
    until(lambda: (lock._waiting_to_read, lock._waiting_to_write) == (readers, writers))


class Visitor:
    """A thread that enters a lock, and leaves it when it is told to."""

    def __init__(self, lock: SharedLock, kind: str, order: list[str], name: str = "") -> None:
        self.inside, self.go = threading.Event(), threading.Event()
        self._enter, self._order, self._name = getattr(lock, kind), order, name or kind
        self.thread = started(self._visit)

    def _visit(self) -> None:
        with self._enter():
            self._order.append(self._name)
            self.inside.set()
            assert self.go.wait(SOON)

    def leave(self) -> None:
        self.go.set()
        self.thread.join(SOON)
        assert not self.thread.is_alive()


def test_readers_are_inside_together():
    lock, together = SharedLock(), threading.Barrier(4)

    def read():
        with lock.reading():
            together.wait(SOON)

    threads = [started(read) for _ in range(4)]
    for thread in threads:
        thread.join(SOON)
    assert not together.broken


def test_a_writer_is_alone_with_what_it_changes():
    lock, order = SharedLock(), []
    reader = Visitor(lock, "reading", order)
    assert reader.inside.wait(SOON)
    writer = Visitor(lock, "writing", order)
    waits(lock, writers=1)
    reader.leave()
    assert writer.inside.wait(SOON)
    late = [Visitor(lock, "reading", order), Visitor(lock, "writing", order)]
    waits(lock, readers=1, writers=1)
    writer.leave()
    for one in late:
        one.leave()
    assert order == ["reading", "writing", "reading", "writing"]


def test_a_writer_that_waits_comes_before_readers_that_come_later():
    lock, order = SharedLock(), []
    reader = Visitor(lock, "reading", order)
    assert reader.inside.wait(SOON)
    writer = Visitor(lock, "writing", order)
    waits(lock, writers=1)
    later = Visitor(lock, "reading", order, "later")
    waits(lock, readers=1, writers=1)
    reader.leave()
    writer.leave()
    later.leave()
    assert order == ["reading", "writing", "later"]


def test_readers_that_waited_for_a_change_come_before_the_next_change():
    lock, order = SharedLock(), []
    first = Visitor(lock, "writing", order)
    assert first.inside.wait(SOON)
    second = Visitor(lock, "writing", order)
    waits(lock, writers=1)
    readers = [Visitor(lock, "reading", order) for _ in range(3)]
    waits(lock, readers=3, writers=1)
    first.leave()
    for one in readers:
        assert one.inside.wait(SOON)
    assert not second.inside.is_set()
    for one in readers:
        one.leave()
    second.leave()
    assert order == ["writing", "reading", "reading", "reading", "writing"]


def test_a_reader_enters_again_while_a_writer_waits():
    lock = SharedLock()
    with lock.reading():
        writer = Visitor(lock, "writing", [])
        waits(lock, writers=1)
        with lock.reading():
            assert not writer.inside.is_set()
        assert lock.is_reading
        assert not writer.inside.is_set()
    assert not lock.is_reading
    writer.leave()


def test_a_reader_writes_as_soon_as_the_others_have_left():
    lock, order = SharedLock(), []
    other = Visitor(lock, "reading", order)
    assert other.inside.wait(SOON)

    def change():
        with lock.reading(), lock.writing(), lock.reading(), lock.writing():
            order.append("changed")

    thread = started(change)
    waits(lock, writers=1)
    assert order == ["reading"]
    other.leave()
    thread.join(SOON)
    assert order == ["reading", "changed"]


@pytest.mark.parametrize("kind", ["reading", "writing"])
def test_who_raises_inside_leaves(kind):
    lock = SharedLock()
    with pytest.raises(ZeroDivisionError), getattr(lock, kind)():
        raise ZeroDivisionError
    Visitor(lock, "writing", []).leave()
    Visitor(lock, "reading", []).leave()


@pytest.mark.parametrize(("kind", "held"), [("reading", "writing"), ("writing", "reading")])
def test_who_is_interrupted_while_it_waits_is_forgotten(monkeypatch, kind, held):
    lock = SharedLock()
    holder = Visitor(lock, held, [])
    assert holder.inside.wait(SOON)

    def interrupted():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(lock._moved, "wait", interrupted)
        with pytest.raises(KeyboardInterrupt), getattr(lock, kind)():
            pass
    holder.leave()
    Visitor(lock, "writing", []).leave()
    Visitor(lock, "reading", []).leave()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on Windows")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["reading", "writing"])
def test_a_fork_waits_for_others_and_the_child_finds_the_lock_free(kind):
    lock = SharedLock()
    inside = threading.Event()

    def hold():
        with getattr(lock, kind)():
            inside.set()
            threading.Event().wait(0.05)

    threads = [started(hold) for _ in range(3)]
    assert inside.wait(SOON)
    with lock.reading():  # the thread that forks may be inside itself
        child = os.fork()
        if not child:
            with lock.writing(), lock.reading():
                os._exit(0 if list(lock._readers.values()) == [2] else 1)
    for thread in threads:
        thread.join(SOON)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not lock._readers
    Visitor(lock, "writing", []).leave()


def test_who_waits_in_the_parent_is_nobody_in_the_child():
    lock = SharedLock()
    with lock.writing():
        lock._waiting_to_read = lock._waiting_to_write = 1
        lock._before_fork()
        lock._after_fork(in_child=True)
    for kind in ("reading", "writing"):
        Visitor(lock, kind, []).leave()
