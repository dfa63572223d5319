import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from m3_retrievers.encoder.batching import plan_batches, run_batches
from m3_retrievers.errors import MemoryWarning


@given(st.lists(st.integers(1, 600), max_size=200), st.integers(1, 3000))
def test_every_text_is_in_one_batch_and_no_batch_passes_the_budget(lengths, budget):
    lengths = np.array(lengths, np.int64)
    batches = plan_batches(lengths, budget=budget)
    assert sorted(np.concatenate([*batches, np.empty(0, int)]).tolist()) == list(
        range(len(lengths))
    )
    for batch in batches:
        padded = lengths[batch].max() * len(batch)
        assert padded <= budget or len(batch) == 1


def test_texts_are_batched_by_length_so_little_is_padding():
    lengths = np.array([10, 500] * 50)
    for batch in plan_batches(lengths, budget=2000)[:-1]:
        assert len(set(lengths[batch])) == 1 or len(batch) < 5


def test_out_of_memory_halves_the_budget_says_so_and_finishes_every_text():
    done: list[int] = []

    def run(rows):
        if len(rows) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        done.extend(rows.tolist())

    with pytest.warns(MemoryWarning, match="budget of 40 tokens"):
        finished = list(run_batches(np.full(16, 10), run, budget=80))
    assert sorted(done) == list(range(16))
    assert sum(map(len, finished)) == 16


def test_the_processor_allocators_error_counts_as_out_of_memory():
    def run(rows):
        if len(rows) > 1:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate")

    with pytest.warns(MemoryWarning):
        assert sum(map(len, run_batches(np.array([5, 5]), run, budget=10))) == 2


def test_memory_error_of_a_single_text_surfaces():
    def run(rows):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        list(run_batches(np.array([9]), run, budget=8))


def test_any_other_error_surfaces_unchanged_and_without_a_second_try():
    calls = []

    def run(rows):
        calls.append(rows)
        raise RuntimeError("index out of range")

    with pytest.raises(RuntimeError, match="index out of range"):
        list(run_batches(np.full(8, 10), run, budget=80))
    assert len(calls) == 1
