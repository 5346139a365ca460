"""The run table: one Run per model that is evaluated, written once as runs.jsonl and read by all that reads results."""

from argparse import ArgumentParser
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from croco.errors import InputError
from croco.records import read_jsonl

UNTUNED = "untuned"
BASE = "base"
OWN, OTHER_POLICY, LAST_ROUND = "own", "other policy", "last round"
# Keys of a setting that are options of scripts/build_pairs.py by the same name.
PAIRING_KEYS = [
    "target",
    "rejected",
    "pool_size",
    "per_prompt",
    "balance",
    "standardise",
    "rejected_from",
    "prompt_language",
    "caliper",
]


@dataclass(frozen=True)
class Run:
    """One row of the run table: a model that is evaluated, and, except the base, tuned first.

    Attributes:
        model: name of the policy.
        pool: the languages that it is tuned on, by name; a monolingual pool has its language's code.
        arm: name of the setting in the config.
        replicate: which of the setting's training seeds, from 1.
        round: which of the setting's rounds, from 1; each round is a run of its own.
        seed: of the training, 31 bits.
        languages: codes of the pool.
        batches: the evaluation jobs, {name: codes}; fixed by the pools' names, so that a new language becomes a job of
            its own and changes no finished one.
        reward_model: name of the reward model that scores its responses and answers.
        pool_size: responses per language among which the pair rule chooses.
        responses: the folder under the output root that holds the responses, e.g. a policy's name.
        row: the setting's row of the config, defaults filled in.
        varies: keys of the row with another value than the config has for all settings.
    """

    model: str
    pool: str
    arm: str
    replicate: int
    round: int
    seed: int
    languages: tuple[str, ...]
    batches: dict[str, tuple[str, ...]]
    reward_model: str
    pool_size: int
    responses: str
    row: dict
    varies: dict

    @classmethod
    def from_row(cls, row: dict) -> "Run":
        """Raises msgspec.ValidationError where a field is missing, unknown or of another type."""
        if unknown := sorted(row.keys() - cls.__dataclass_fields__.keys()):
            raise msgspec.ValidationError(f"Object contains unknown field `{unknown[0]}`")
        return msgspec.convert(row, cls)

    def to_row(self) -> dict:
        """A JSON object with every field."""
        return msgspec.to_builtins(asdict(self), order="sorted")

    @property
    def is_base(self) -> bool:
        """Whether it is the policy before tuning."""
        return self.pool == UNTUNED

    @property
    def setting(self) -> str:
        """The arm, with the replicate's number behind it from the second on: dpo, dpo.s2."""
        return self.arm if self.replicate == 1 else f"{self.arm}.s{self.replicate}"

    @property
    def part(self) -> str:
        """The setting's part of a path: the setting, and the round where there are several."""
        return f"{self.setting}/round{self.round}" if self.row["rounds"] > 1 else self.setting

    @property
    def name(self) -> str:
        """The run's folder under the output root."""
        return f"{self.model}/{self.pool}/{self.part}"

    @property
    def evaluated(self) -> list[str]:
        """Codes of the languages in which it is evaluated."""
        return [language for languages in self.batches.values() for language in languages]

    @property
    def objective(self) -> str:
        """What it is tuned by, a key of croco.objectives.OBJECTIVES; none for the base."""
        return self.row["objective"]

    @property
    def target(self) -> str | None:
        """What the data holds: pair, best, reference or prompts; None for the base."""
        return self.row.get("target")

    @property
    def uses_rewards(self) -> bool:
        """Whether rewards decide what it is tuned on."""
        return self.target in ("pair", "best", "prompts")

    @property
    def uses_responses(self) -> bool:
        """Whether it is tuned on responses of a pool."""
        return self.target in ("pair", "best")


def read_runs(path: Path) -> list[Run]:
    """The run table.

    Raises InputError with file and line for a row that is no row of the run table, or a second one of the same run.
    """
    runs, seen = [], set()
    remedy = "let the workflow write it: snakemake RESULTS/runs.jsonl"
    for line, row in read_jsonl(path):
        try:
            run = Run.from_row(row)
        except (msgspec.ValidationError, AttributeError) as error:
            raise InputError(f"not a row of the run table ({error})", remedy, path, line) from error
        key = (run.model, run.pool, run.setting, run.round)
        if key in seen:
            name = f"{run.model}/{run.pool}/{run.setting}, round {run.round}"
            raise InputError(f"a second row of the run {name}", remedy, path, line)
        seen.add(key)
        runs.append(run)
    return runs


def add_run_options(parser: ArgumentParser) -> None:
    """Options of scripts that read the results of all runs."""
    parser.add_argument("--root", type=Path, required=True, help="output root of the run")
    parser.add_argument("--runs", type=Path, required=True, help="runs.jsonl, the run table")


def add_contrast_option(parser: ArgumentParser) -> None:
    """The option --contrast, which may be given several times; each value is a list [setting, pool, versus]."""
    parser.add_argument(
        "--contrast",
        nargs=3,
        action="append",
        default=[],
        metavar=("SETTING", "POOL", "VERSUS"),
        help="a declared comparison of win rates",
    )


def find_last(runs: Iterable[Run], model: str, pool: str, setting: str) -> Run | None:
    """The run of a setting, the last round where it has several; None where there is no such run."""
    found = [run for run in runs if (run.model, run.pool, run.setting) == (model, pool, setting)]
    return found[-1] if found else None


@dataclass(frozen=True)
class Arm:
    """A setting over all its pools, replicates and rounds. Findings choose arms by these facts, never by the name.

    Attributes:
        rejected: the pair rule, or None.
        responses: whose responses it is tuned on: own, other policy, or last round.
        pools: {pool: {"trained": codes, "evaluated": codes}}; a monolingual pool has its language's code.
        varies: as of a Run.
    """

    setting: str
    objective: str
    target: str | None
    rejected: str | None
    responses: str
    pools: dict[str, dict[str, list[str]]]
    varies: dict

    def list_pools(self, place: str, monolingual: str) -> list[str]:
        """The pools of a place: all pools of one language where it is ``monolingual``, else the pool of its name."""
        return [
            pool for pool, codes in self.pools.items() if place == (monolingual if codes["trained"] == [pool] else pool)
        ]


def list_arms(runs: Iterable[Run]) -> list[Arm]:
    """The arms of tuned runs, in the order of the run table."""
    arms: dict[str, Arm] = {}
    for run in runs:
        if run.is_base:
            continue
        row = run.row
        arm = arms.setdefault(
            run.arm,
            Arm(
                setting=run.arm,
                objective=run.objective,
                target=run.target,
                rejected=row.get("rejected"),
                responses=LAST_ROUND if row["rounds"] > 1 else OTHER_POLICY if "responses" in row else OWN,
                pools={},
                varies=run.varies,
            ),
        )
        arm.pools[run.pool] = {"trained": list(run.languages), "evaluated": list(run.evaluated)}
    return list(arms.values())


def name_data(target: str | None) -> str:
    """Name of the file that a setting with this target is trained on, without its ending."""
    return {"pair": "pairs", "prompts": "prompts"}.get(target or "", "completions")
