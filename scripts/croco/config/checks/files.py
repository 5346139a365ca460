"""Files and folders of this machine that the config names; whoever reads another's config does not have them."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from croco.config.checks.models import ROLES, is_hub_id
from croco.config.faults import Fault
from croco.digests import WEIGHTS
from croco.errors import InputError
from croco.evaluation.judge_prompt import read_template
from croco.evaluation.task_files import REMEDY, find_code

if TYPE_CHECKING:
    from croco.grid import Grid


CHECKOUT = Path(__file__).parents[4]
SPEEDS = "config/speeds.tsv"
# Folders of the checkout that hold no results.
OWN_FOLDERS = ("config", "docs", "envs", "profiles", "report", "rules", "scripts", "tests")


def check_results(grid: "Grid") -> Iterator[Fault]:
    """The output root is a folder of its own: results never mix with the user's files or with the checkout's."""
    given = str(grid.config["results"])
    path, here = Path(grid.results).resolve(), Path.cwd()
    own = [base / name for base in (here, CHECKOUT) for name in OWN_FOLDERS]
    if here.is_relative_to(path) or CHECKOUT.is_relative_to(path) or any(map(path.is_relative_to, own)):
        yield Fault(("results",), f"{given} is no folder of its own", "give one, such as results/NAME")
    if files := [str(place) for place in (path, *path.parents) if place.exists() and not place.is_dir()]:
        yield Fault(
            ("results",), f"{files[0]} is a file, where the results need a folder", "move it, or choose another"
        )
    if any(part.startswith("-") for part in Path(given).parts):
        yield Fault(("results",), f"{given} has a part that begins with -", "begin it with a letter or a digit")


def check_gpu_type(grid: "Grid") -> Iterator[Fault]:
    """The type of the GPUs is a row of the checkout's table, to which users may add theirs."""
    from croco.planning.speed import read_speeds  # late: it imports the Grid, which imports this

    name, known = grid.config.get("gpu_type"), read_speeds(CHECKOUT / SPEEDS)
    if name is not None and name not in known:
        problem = f"{name} is no row of {SPEEDS} ({', '.join(known)})"
        remedy = f"add a row to {SPEEDS}, or leave gpu_type out: time limits are then those of the slowest type"
        yield Fault(("gpu_type",), problem, remedy)


def check_custom_rules(grid: "Grid") -> Iterator[Fault]:
    """The user's files of Snakemake rules exist."""
    for i, path in enumerate(grid.config["custom_rules"]):
        if not Path(path).is_file():
            problem = f"there is no file {path} in {Path.cwd()}"
            yield Fault(("custom_rules", i), problem, "correct the path, or start in the folder that has the file")


def check_paths(grid: "Grid") -> Iterator[Fault]:
    """A path that cannot be a hub id must be a folder with weights."""
    for key in ROLES:
        for i, row in enumerate(grid.config[key]):
            keys, path = (key, i, "path"), grid.path(row["path"])
            if path.startswith(f"{grid.results}/miniature/"):
                continue
            if Path(path).is_dir():
                if not list(Path(path).glob(WEIGHTS)):
                    yield Fault(
                        keys,
                        f"no {WEIGHTS} in {path}",
                        "name a folder with a model's weights in safetensors; pickled ones (.bin) are not read",
                    )
            elif not is_hub_id(path):
                yield Fault(keys, f"{path} is no folder, and no hub id", "correct the path")


def check_judges(grid: "Grid") -> Iterator[Fault]:
    """Judges' prompts can be read and have all their fields."""
    for i, row in enumerate(grid.config["judges"]):
        try:
            read_template(row["prompt"])
        except InputError as error:
            yield Fault(("judges", i, "prompt"), str(error).split("\n")[0], "see config/judge_prompt.txt")


def check_task_code(grid: "Grid") -> Iterator[Fault]:
    """The config's own tasks run no code, unless their rows say that it is trusted."""
    for i, task in enumerate(grid.config["evaluation"]["tasks"]):
        keys = ("evaluation", "tasks", i, "yaml")
        if not Path(task["yaml"]).is_file():
            continue
        try:
            found = find_code(task["yaml"])
        except InputError as error:
            yield Fault(keys, str(error).split("\n")[0], "write the file as those in config/tasks/")
            continue
        if found and not task["trust_task_code"]:
            yield Fault(keys, f"{task['yaml']} runs code: {', '.join(found)}", REMEDY)


def check_dataset_folders(grid: "Grid") -> Iterator[Fault]:
    """Folders of prompts exist."""
    for i, row in enumerate(grid.config["prompts"]):
        dataset = row.get("dataset", "")
        if dataset.startswith((".", "/")) and not Path(dataset).is_dir():
            yield Fault(
                ("prompts", i, "dataset"), f"there is no folder {dataset}", "correct the path, or give a hub id"
            )


def check_imports(grid: "Grid") -> Iterator[Fault]:
    """Imported files of results exist."""
    for i, row in enumerate(grid.config["imports"]):
        path = grid.path(row["path"])
        if not Path(path).is_file():
            yield Fault(("imports", i, "path"), f"there is no file {path}", "correct the path")


def check_audit(grid: "Grid") -> Iterator[Fault]:
    """The files with the audit's comparisons exist, unless the run itself writes them."""
    comparisons = grid.config["audit"].get("comparisons")
    for code in grid.trained if comparisons else []:
        path = grid.path(comparisons, language=code)
        if not Path(path).is_relative_to(grid.results) and not Path(path).is_file():
            yield Fault(("audit", "comparisons"), f"there is no file {path}", "correct the path, or leave it out")


def check_votes(grid: "Grid") -> Iterator[Fault]:
    """The folder of filled ballots exists and holds some."""
    votes = grid.config["preview"].get("votes")
    folder = Path(grid.path(votes or ""))
    if votes is not None and not folder.is_dir():
        yield Fault(("preview", "votes"), f"there is no folder {folder}", "correct the path, or leave it out")
    elif votes is not None and not list(folder.glob("*.csv")):
        remedy = "put the filled ballots there, as LANGUAGE.VOTER.csv, or leave it out"
        yield Fault(("preview", "votes"), f"no *.csv in {folder}", remedy)


CHECKS = (
    check_results,
    check_gpu_type,
    check_custom_rules,
    check_paths,
    check_judges,
    check_task_code,
    check_dataset_folders,
    check_imports,
    check_audit,
    check_votes,
)
