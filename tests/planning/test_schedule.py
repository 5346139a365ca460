"""The simulated run of a plan."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from croco.planning.jobs import NEW, PlannedJob, find_ends
from croco.planning.schedule import simulate


def job(gpus=1, after=(), priority=0):
    return PlannedJob("generate", {}, NEW, gpus, 60, ("a",), None, False, tuple(after), priority=priority)


@st.composite
def workflows(draw):
    """(jobs, hours, number of GPUs); each job waits for some before it."""
    jobs = []
    for position in range(draw(st.integers(1, 12))):
        after = draw(st.sets(st.integers(0, position - 1))) if position else set()
        jobs.append(job(draw(st.integers(0, 4)), sorted(after), draw(st.integers(0, 2))))
    hours = draw(st.lists(st.floats(0, 5), min_size=len(jobs), max_size=len(jobs)))
    return jobs, hours, draw(st.integers(1, 5))


@given(workflows())
def test_no_run_is_shorter_than_its_chain_or_its_work(workflow):
    jobs, hours, gpus = workflow
    schedule = simulate(jobs, hours, gpus)
    work = sum(hour * min(job.gpus, gpus) for job, hour in zip(jobs, hours, strict=True))
    assert schedule.hours >= max(find_ends(jobs, hours)) - 1e-9
    assert schedule.hours <= sum(hours) + 1e-9
    assert (schedule.busy or 0) * gpus * schedule.hours == pytest.approx(work if schedule.hours else 0)


def test_jobs_share_the_gpus_and_wait_for_those_that_they_need():
    jobs = [job(), job(), job(gpus=2, after=[0]), job(after=[2])]
    schedule = simulate(jobs, [1.0, 3.0, 2.0, 1.0], 2)
    assert schedule.hours == 6.0  # the third job waits until both GPUs are free
    assert schedule.busy == pytest.approx((1 + 3 + 4 + 1) / 12)


def test_higher_priority_starts_first():
    chain = [job(), job(priority=1), job(after=[1])]
    assert simulate(chain, [2.0, 2.0, 2.0], 1).hours == 6.0
    assert simulate(chain, [2.0, 1.0, 2.0], 2).hours == 3.0
    shares = [simulate([job(), job(), job(priority=first), job(after=[2])], [2, 2, 2, 2], 2).hours for first in (0, 1)]
    assert shares == [6, 4]
