"""How the run table reaches the scripts that read all results: --run, --contrast, --root and --arms."""

from dataclasses import asdict, dataclass, fields
from pathlib import Path

from croco.errors import InputError

# Of --run as summary.py and those who follow it take it; of summary.csv.
RUN = ["MODEL", "POOL", "SETTING", "SEED", "REWARD_MODEL", "POOL_SIZE", "LANGUAGES"]
COLUMNS = [
    "model",
    "language",
    "setting",
    "seed",
    "round",
    "reward_model",
    "pool_size",
    "eval_language",
    "languages",
    "task",
    "suite",
    "metric",
    "value",
    "n",
    "baseline",
    "baseline_value",
    "delta",
    "se",
    "ci_low",
    "ci_high",
    "p",
    "p_adjusted",
    "q",
    "mde",
]


def add_run_options(parser, columns):
    """Adds the options; ``columns`` name the values of --run and hold MODEL, POOL, SETTING and LANGUAGES."""
    parser.add_argument("--root", type=Path, required=True, help="output root of the run")
    parser.add_argument(
        "--run",
        nargs=len(columns),
        action="append",
        required=True,
        metavar=tuple(columns),
        help="a row of the run table; LANGUAGES are codes with commas between, a SETTING's rounds are NAME/roundR",
    )
    parser.add_argument(
        "--contrast",
        nargs=3,
        action="append",
        default=[],
        metavar=("SETTING", "POOL", "VERSUS"),
        help="a declared comparison of win rates",
    )


def read_runs(args, columns):
    """The rows given by --run as dicts with lower-case keys, languages as a list, the round and the run's folder."""
    runs = [dict(zip((name.lower() for name in columns), values, strict=True)) for values in args.run]
    for run in runs:
        run["languages"] = run["languages"].split(",")
        run["folder"] = args.root / run["model"] / run["pool"] / run["setting"]
        run["part"] = run["setting"]
        run["setting"], _, number = run["part"].partition("/round")  # a setting's name has no slash
        run["round"] = int(number or 1)
    return runs


def find_last(runs, model, pool, setting):
    """The run of a setting, the last one where it has several rounds."""
    return [run for run in runs if (run["model"], run["pool"], run["setting"]) == (model, pool, setting)][-1]


def identify(run):
    """The columns of summary.csv that say which run a row is of; a dash in the run table is empty there."""
    return {
        "model": run["model"],
        "language": run["pool"],
        "setting": run["setting"],
        "seed": run["seed"],
        "round": run["round"],
        "reward_model": None if run["reward_model"] == "-" else run["reward_model"],
        "pool_size": None if run["pool_size"] == "-" else run["pool_size"],
    }


OWN, OTHER_POLICY, LAST_ROUND = "own", "other policy", "last round"
# Keys of a setting that are fields of an arm themselves, or that change nothing of what it is tuned on.
NOT_IN_VARIES = {
    *("name", "objective", "target", "rejected", "responses", "rounds", "pools"),
    *("seeds", "evaluate", "guards", "allow_degenerate"),
}


@dataclass(frozen=True)
class Arm:
    """A setting as its row of the config describes it. Findings choose arms by these facts, never by the name.

    Attributes:
        rejected: the pair rule, or None.
        responses: whose responses it is tuned on: own, other policy, or last round.
        pools: {pool: {"trained": codes, "evaluated": codes}}; a monolingual pool bears its language's code.
        varies: keys of the row with other values than the config has for all settings.
    """

    setting: str
    objective: str
    target: str | None
    rejected: str | None
    responses: str
    pools: dict
    varies: dict

    @classmethod
    def from_row(cls, row):
        """Raises InputError where a row has other fields than an arm."""
        names = {field.name for field in fields(cls)}
        if not isinstance(row, dict) or row.keys() != names:
            raise InputError(f"an arm has other fields than {', '.join(sorted(names))}", "correct --arms", field="arms")
        return cls(**row)

    def to_row(self):
        return asdict(self)

    def list_pools(self, place, monolingual):
        """The pools of a place: all pools of one language where it is ``monolingual``, else the pool of its name."""
        return [
            pool for pool, codes in self.pools.items() if place == (monolingual if codes["trained"] == [pool] else pool)
        ]


def list_arms(grid):
    """The arms of a checked config, in its order; the base, which is not tuned, is left out."""
    usual = {
        "pool_size": grid.config["samples"],
        "reward_model": next(iter(grid.reward_models)),
        "hygiene": grid.hygiene,
        "balance": False,
        "standardise": False,
        "rejected_from": "pool",
        "prompt_language": "chosen",
        "per_prompt": "one",
    }
    arms = {}
    for run in grid.runs.values():
        row = run.row
        if row["objective"] == "none":
            continue
        arm = arms.setdefault(
            row["name"],
            Arm(
                setting=row["name"],
                objective=row["objective"],
                target=row.get("target"),
                rejected=row.get("rejected"),
                responses=LAST_ROUND if row["rounds"] > 1 else OTHER_POLICY if "responses" in row else OWN,
                pools={},
                varies={
                    key: value
                    for key, value in row.items()
                    if key not in NOT_IN_VARIES and value != (row["objective"] if key == "recipe" else usual.get(key))
                },
            ),
        )
        arm.pools[run.pool] = {"trained": list(run.languages), "evaluated": list(run.evaluated)}
    return list(arms.values())
