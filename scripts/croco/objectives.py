"""The objectives that a policy is tuned by, and what follows from each; a new one is a line here and its trainer.

The trainers are made in croco/training/trainers.py.
"""

from dataclasses import dataclass, field

from croco.records import Completion, Pair, Row

NONE = "none"  # the objective of the policy before tuning


@dataclass(frozen=True)
class Objective:
    """What the workflow must know of an objective.

    Attributes:
        targets: what a setting may train on; see `target` in config/schema.yaml.
        kind: of the rows of its data (croco.records).
        texts: the chat lists of a row that it reads; the first is what the others answer.
        has_reference: it compares the policy with a frozen copy of itself.
        samples: it samples responses while it trains, so that a reward model takes part.
        validates: it has a validation loss.
        recipe_keys: keys of a recipe that have an effect on it and not on every objective.
        losses: values of the recipe key `loss` that it has, where these are fewer than the key allows.
        guards: what stops its training unless a setting says otherwise (croco.training.guards).
        curve: what the report page calls its loss.
    """

    name: str
    targets: tuple[str, ...]
    kind: type[Row]
    texts: tuple[str, ...]
    curve: str
    has_reference: bool = True
    samples: bool = False
    validates: bool = True
    recipe_keys: frozenset[str] = frozenset()
    losses: tuple[str, ...] = ()
    guards: dict[str, float] = field(default_factory=dict)

    @property
    def has_pairs(self) -> bool:
        """Whether a row has a chosen and a rejected response."""
        return len(self.texts) == 3


OBJECTIVES = {
    objective.name: objective
    for objective in (
        Objective(
            "sft",
            targets=("reference", "best"),
            kind=Completion,
            texts=("prompt", "completion"),
            curve="SFT loss",
            has_reference=False,
            recipe_keys=frozenset({"loss_on"}),
        ),
        Objective(
            "dpo",
            targets=("pair",),
            kind=Pair,
            texts=("prompt", "chosen", "rejected"),
            curve="DPO loss",
            recipe_keys=frozenset({"beta", "loss", "label_smoothing"}),
            guards={"collapse": 3, "chance_after": 0.5},
        ),
        # Both responses of a pair are the policy's own of that step, so that no guard can tell collapse from chance.
        Objective(
            "online_dpo",
            targets=("prompts",),
            kind=Row,
            texts=("prompt",),
            curve="online DPO loss",
            samples=True,
            validates=False,
            recipe_keys=frozenset({"beta", "loss", "label_smoothing", "generation_batch"}),
            losses=("sigmoid", "ipo"),
        ),
    )
}
# Keys of a recipe that have an effect on some objectives only.
SPECIAL_KEYS = frozenset().union(*(objective.recipe_keys for objective in OBJECTIVES.values()))
