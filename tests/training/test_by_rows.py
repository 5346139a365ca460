"""The order of the rows of a training."""

import pytest
from accelerate.data_loader import SeedableRandomSampler
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from croco.training.by_rows import StepsByLength, measure_rows


@given(
    st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3),
    st.integers(0, 3), st.integers(0, 2),
)  # fmt: skip
def test_a_step_has_the_rows_of_the_random_order_and_micro_batches_of_similar_length(
    lengths, micro_batch, accumulated, processes, seed, epoch
):
    random = SeedableRandomSampler(lengths, data_seed=seed)
    by_length = StepsByLength(lengths, micro_batch, accumulated, processes, seed)
    random.set_epoch(epoch)
    by_length.set_epoch(epoch)
    drawn, order = list(random), list(by_length)
    assert len(by_length) == len(order) == len(lengths)
    batch = micro_batch * accumulated * processes
    for start in range(0, len(lengths), batch):
        step = order[start : start + batch]
        assert sorted(step) == sorted(drawn[start : start + batch])
        longest_first = sorted((lengths[i] for i in step), reverse=True)
        cut = range(0, len(step), micro_batch)
        found = [sorted((lengths[i] for i in step[first : first + micro_batch]), reverse=True) for first in cut]
        assert sorted(found) == sorted(longest_first[first : first + micro_batch] for first in cut)
        assert max(lengths[i] for i in step[:micro_batch]) == longest_first[0]


def test_processes_have_about_as_many_tokens_in_a_step():
    processes, accumulated = 8, 8
    lengths = [100 + 3 * i for i in range(64)]
    order = list(StepsByLength(lengths, 1, accumulated, processes, 0))
    tokens = [sum(lengths[i] for i in order[process::processes]) for process in range(processes)]
    assert len(set(tokens)) == 1


def test_the_order_is_a_function_of_seed_and_epoch():
    def draw(seed, epoch):
        rows = StepsByLength([1] * 100, 1, 10, 1, seed)
        rows.set_epoch(epoch)
        return list(rows)

    assert draw(0, 1) == draw(0, 1)
    assert len({tuple(draw(seed, epoch)) for seed, epoch in ((0, 0), (0, 1), (7, 0))}) == 3


@pytest.mark.parametrize(
    ("rows", "lengths"),
    [
        ([{"row": 0, "prompt_ids": [1, 2], "chosen_ids": [3], "rejected_ids": [4, 5, 6]}], [5]),
        (
            [{"row": 0, "input_ids": [1, 2, 3], "labels": [-100, 2, 3]}, {"row": 1, "input_ids": [1], "labels": [1]}],
            [3, 1],
        ),
        ([{"row": 0, "prompt": [{"role": "user", "content": "Hi"}]}], None),
    ],
)
def test_a_row_is_as_long_as_its_longest_sequence(rows, lengths):
    assert measure_rows(Dataset.from_list(rows)) == lengths
