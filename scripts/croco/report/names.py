"""Plain names of arms, made from what their rows say: "DPO, random pairs (control)" for `dpo_random`."""

from collections.abc import Iterable

from croco.objectives import OBJECTIVES
from croco.runs import LAST_ROUND, OTHER_POLICY, Arm, Run, list_arms

UNTUNED_NAME = "Untuned model"
# What is said of a pair rule; the paper's own rule, mean-2sd, is the usual one and has no words.
RULES_IN_WORDS = {
    "min": "worst response rejected",
    "q1": "25th percentile rejected",
    "random": "random pairs (control)",
}
RESPONSES_IN_WORDS = {OTHER_POLICY: "another model's responses", LAST_ROUND: "in rounds"}


def is_control(run: Run) -> bool:
    """Whether it is a null control: its pairs do not depend on rewards, so tuning should change nothing."""
    return run.row.get("rejected") == "random"


def name_arms(runs: Iterable[Run]) -> dict[str, str]:
    """{setting without its replicate's number: plain name}; a name that is used already has the setting behind it."""
    names: dict[str, str] = {}
    for arm in list_arms(runs):
        name = _describe(arm)
        names[arm.setting] = f"{name} ({arm.setting})" if name in names.values() else name
    return names


def _describe(arm: Arm) -> str:
    title = OBJECTIVES[arm.objective].curve.removesuffix(" loss")
    title = title[:1].upper() + title[1:]
    if arm.target == "best":
        title = f"{title} on the best response"
    elif arm.target == "reference":
        title = f"{title} on reference answers"
    words = [title, RULES_IN_WORDS.get(arm.rejected or ""), RESPONSES_IN_WORDS.get(arm.responses)]
    return ", ".join(word for word in words if word)
