"""When a training is stopped, on series of metrics small enough to be worked out by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from croco.errors import InputError
from croco.training.guards import Guards, check_guards

BETA = 0.5
finite = st.floats(-1e3, 1e3, allow_nan=False)


def entry(step, chosen=-10.0, reference=-10.0, accuracy=1.0, **others):
    reward = BETA * (chosen - reference)
    return {
        "step": step, "loss": 0.5, "grad_norm": 1.0, "logps_chosen": chosen, "rewards_chosen": reward,
        "rewards_accuracies": accuracy, **others,
    }  # fmt: skip


def stop_of(entries, max_steps=20, before=(), **options):
    """(the step at which the guards stop, or None; the guards)."""
    guards = Guards(**options)
    guards.start(max_steps, before, BETA)
    return next((line["step"] for line in entries if guards.look(line)), None), guards


def test_collapse_is_judged_by_the_mean_of_ten_steps():
    # From -10 nats to -60: the mean of ten steps passes three times -10 with the fifth, as 4 x -60 + 6 x -10 = -300.
    entries = [entry(step, chosen=-10 if step <= 10 else -60) for step in range(1, 21)]
    stopped, guards = stop_of(entries, collapse=3)
    assert stopped == 15 and "fell from -10 to -35 nats" in str(guards.problem)
    assert stop_of(entries, collapse=7)[0] is None
    assert stop_of(entries)[0] is None
    # Answers that were unlikely from the start did not collapse.
    assert stop_of([entry(step, chosen=-60, reference=-60) for step in range(1, 21)], collapse=3)[0] is None


def test_chance_is_looked_at_after_its_share_of_the_steps():
    entries = [entry(step, accuracy=0.5) for step in range(1, 41)]
    stopped, guards = stop_of(entries, max_steps=40, chance_after=0.5)
    assert stopped == 20 and "stopped at step 20 of 40" in str(guards.problem) and "50%" in str(guards.problem)
    assert stop_of(entries, max_steps=40, chance_after=0)[0] == 10, "not before ten steps were seen"
    better = [entry(step, accuracy=0.5 if step % 10 else 0.6) for step in range(1, 41)]
    assert stop_of(better, max_steps=40, chance_after=0.5)[0] is None


def test_the_window_is_a_tenth_of_a_long_training():
    entries = [entry(step, accuracy=1.0 if step <= 250 else 0.0) for step in range(1, 401)]
    assert stop_of(entries, max_steps=400, chance_after=0.5)[0] == 270, "20 of the last 40 steps"


@pytest.mark.parametrize("name", ["loss", "grad_norm"])
def test_what_is_not_finite_stops_at_once_with_no_guard_set(name):
    stopped, guards = stop_of([entry(1), entry(2, **{name: None}), entry(3)])
    assert stopped == 2 and f"its {name} is not a finite number" in str(guards.problem)


@given(st.lists(st.tuples(finite, finite, st.floats(0, 1)), max_size=30), st.integers(0, 30))
def test_a_resumed_training_stops_where_the_undisturbed_one_does(values, resumed):
    entries = [entry(step, *some) for step, some in enumerate(values, start=1)]
    options = {"max_steps": 30, "collapse": 2, "chance_after": 0.4}
    stopped, _ = stop_of(entries, **options)
    if stopped is None or stopped > resumed:
        # Validation is logged in between.
        before = [line for e in entries[:resumed] for line in (e, {"step": e["step"], "eval_loss": 1.0})]
        assert stop_of(entries[resumed:], before=before, **options)[0] == stopped


@given(st.lists(st.tuples(st.floats(-1e3, -1), st.floats(0.51, 1)), max_size=30))
def test_a_training_that_learns_is_never_stopped(values):
    entries = [entry(step, chosen, chosen - 1, accuracy) for step, (chosen, accuracy) in enumerate(values, start=1)]
    assert stop_of(entries, max_steps=30, collapse=1, chance_after=0)[0] is None


@given(st.lists(st.floats(0, 1), max_size=20))
def test_supervised_tuning_has_no_preferences_to_judge(losses):
    entries = [{"step": step, "loss": loss, "grad_norm": 1.0} for step, loss in enumerate(losses, start=1)]
    assert stop_of(entries, collapse=1, chance_after=0)[0] is None


@pytest.mark.parametrize("options", [{}, {"collapse": 3, "chance_after": 0.5}, {"collapse": None}, {"chance_after": 1}])
def test_options_in_range_are_accepted(options):
    check_guards(options)
    Guards(**options)


@pytest.mark.parametrize(
    "options", [{"colapse": 3}, {"collapse": 0.5}, {"collapse": "3"}, {"chance_after": 50}, {"chance_after": math.nan}]
)
def test_other_options_are_refused(options):
    with pytest.raises(InputError, match=next(iter(options))):
        check_guards(options)
