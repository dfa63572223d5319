"""One encoder in many hands: copied, pickled, forked, and used by threads at once."""

import copy
import os
import pickle
import select
import signal
import threading

import numpy as np
import pytest
import torch

from m3_retrievers import M3Encoder
from m3_retrievers.encoder import encoder as encoder_file
from m3_retrievers.encoder.coalesce import Coalesced
from m3_retrievers.scoring.crowd import Crowd


def used(encoder: M3Encoder) -> M3Encoder:
    encoder.encode_query("page")
    encoder.fingerprint  # noqa: B018
    return encoder


def in_use(encoder: M3Encoder) -> M3Encoder:
    """An encoder whose locks are all held."""
    used(encoder)
    encoder._model._lock.acquire()
    for shared in encoder._shared.values():
        shared._lock.acquire()
    return encoder


@pytest.mark.parametrize("state", [lambda new: new, used, in_use], ids=["new", "used", "in use"])
def test_copies_are_the_encoder_and_a_pickle_is_another_without_its_locks(tiny_m3, state):
    expected = M3Encoder.from_pretrained(tiny_m3, device="cpu").encode_query("river")
    encoder = state(M3Encoder.from_pretrained(tiny_m3, device="cpu", truncate_dim=8))
    assert copy.copy(encoder) is encoder
    assert copy.deepcopy({"encoder": [encoder]})["encoder"][0] is encoder
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        other = pickle.loads(pickle.dumps(encoder, protocol))
        assert (other.source, other.settings) == (encoder.source, encoder.settings)
        assert (other.device, other.precision) == (encoder.device, encoder.precision)
    assert len(pickle.dumps(encoder)) < 10_000  # names a model, and holds none
    shortened = expected.dense[:, :8] / np.linalg.norm(expected.dense[:, :8])
    np.testing.assert_allclose(other.encode_query("river").dense, shortened, atol=1e-6)


def run_in_child(call) -> bytes:
    """Fork, call, and return what the child answers; fails where it does not within 20 s."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, str(call()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    try:
        ready, _, _ = select.select([reading], [], [], 20)
        assert ready, "the child hangs"
        return os.read(reading, 100)
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_forked_while_a_thread_encodes_does_not_wait_for_it(tiny_m3, monkeypatch):
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu")
    expected = encoder.encode_query("page").dense.shape
    parent, inside, go_on = os.getpid(), threading.Event(), threading.Event()
    real = encoder.checkpoint.backbone.forward

    def slow(*args, **kwargs):
        if os.getpid() == parent:
            inside.set()
            assert go_on.wait(60)
        return real(*args, **kwargs)

    monkeypatch.setattr(encoder.checkpoint.backbone, "forward", slow)
    thread = threading.Thread(target=encoder.encode_query, args=("river",))
    thread.start()
    assert inside.wait(60)
    try:
        answer = run_in_child(
            lambda: (encoder.encode_query("page").dense.shape, torch.get_num_threads())
        )
    finally:
        go_on.set()
        thread.join()
    assert answer.decode() == str((expected, 1))
    assert encoder.encode_query("page").dense.shape == expected


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_child_forked_while_a_thread_loads_loads_by_itself(tiny_m3):
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu")
    with encoder._model._lock:
        # nothing is loaded in the parent, so the child keeps its threads, here of one lock only
        answer = run_in_child(lambda: encoder._model._lock.acquire(blocking=False))
    assert answer == b"True"


class Exhausted:
    """Squares numbers, and runs out of memory on more than one at a time."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.at_once = self.most = 0
        self.entered, self.go_on = threading.Event(), threading.Event()
        self.guard = threading.Lock()

    def __call__(self, items):
        with self.guard:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        try:
            self.entered.set()
            assert self.go_on.wait(20)
            if len(items) > 1:
                raise self.error
            return [item * item for item in items]
        finally:
            with self.guard:
                self.at_once -= 1


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=repr,
)
def test_a_shared_batch_that_runs_out_of_memory_is_tried_item_by_item(error):
    run = Exhausted(error)
    shared = Coalesced(run)
    results: dict[int, int] = {}
    threads = [
        threading.Thread(target=lambda item=item: results.update({item: shared(item)}))
        for item in range(5)
    ]
    threads[0].start()
    assert run.entered.wait(20)
    for thread in threads[1:]:
        thread.start()
    while len(shared._queue) < 4:
        threading.Event().wait(0.001)
    run.go_on.set()
    for thread in threads:
        thread.join(20)
    assert results == {item: item * item for item in range(5)}
    assert run.most == 1  # one at a time, or memory would run out again


def test_a_lone_call_that_runs_out_of_memory_says_so():
    def run(items):
        raise MemoryError

    with pytest.raises(MemoryError):
        Coalesced(run)(1)


def test_queries_wait_for_the_processors_and_share_the_pass_that_follows(tiny_m3, monkeypatch):
    encoder = M3Encoder.from_pretrained(tiny_m3, device="cpu", keep=None)
    texts = ["river", "page", "clock"]
    expected = [encoder.encode_query(text).dense for text in texts]
    encoder._shared.clear()
    batches, answers = [], {}
    compute = encoder._queries_apart

    def counted(asked, *, outputs):
        batches.append(sorted(asked))
        return compute(asked, outputs=outputs)

    crowd = Crowd(2)
    monkeypatch.setattr(encoder, "_queries_apart", counted)
    monkeypatch.setattr(encoder_file, "crowd", lambda: crowd)
    threads = [
        threading.Thread(
            target=lambda text=text: answers.update({text: encoder.encode_query(text)})
        )
        for text in texts
    ]

    def score():
        for one in threads:
            one.start()
        while not crowd._queue or len(next(iter(encoder._shared.values()))._queue) < 2:
            threading.Event().wait(0.001)

    crowd.on_one_processor(score)
    for one in threads:
        one.join(30)
    assert batches == [sorted(texts)]
    for text, one in zip(texts, expected, strict=True):
        np.testing.assert_allclose(answers[text].dense, one, atol=1e-6)
