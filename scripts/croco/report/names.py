"""Plain names of arms, made from what their rows say: "DPO, random pairs (control)" for `dpo_random`."""

from collections import Counter
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
    """{setting without its replicate's number: plain name}; settings that share a name have theirs behind it."""
    names = {arm.setting: _describe(arm) for arm in list_arms(runs)}
    shared = Counter(names.values())
    return {setting: f"{name} ({setting})" if shared[name] > 1 else name for setting, name in names.items()}


def _describe(arm: Arm) -> str:
    title = OBJECTIVES[arm.objective].curve.removesuffix(" loss")
    title = title[:1].upper() + title[1:]
    if arm.target == "best":
        title = f"{title} on the best response"
    elif arm.target == "reference":
        title = f"{title} on reference answers"
    words = [title, RULES_IN_WORDS.get(arm.rejected or ""), RESPONSES_IN_WORDS.get(arm.responses)]
    return ", ".join(word for word in words if word)
