"""How the run table reaches the scripts that read all results: --run, --contrast and --root."""

from pathlib import Path

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
