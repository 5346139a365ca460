"""What a config decides of results besides their evidence: how pairs are formed, who judges, and what tables hold."""

from typing import Any

from croco.grid import Grid
from croco.pairs.hygiene import PAPER
from croco.results.coverage import MANIFEST
from croco.runs import PAIRING_KEYS, name_data


def list_choices(grid: Grid) -> dict[str, dict[str, Any]]:
    """{manifest: {option: what the config says}} of what decides a result besides its evidence.

    These are the comparisons and measures of the tables, how pairs were formed, and who judged.
    """
    evaluation = grid.config["evaluation"]
    tables = {
        "judged": evaluation["judge"] != "none",
        "fidelity": evaluation["fidelity"],
        "contrast": [list(contrast) for contrast in grid.contrasts],
    }
    choices: dict[str, dict[str, Any]] = {f"{stage}.{MANIFEST}": tables for stage in ("summary", "report")}
    orders = {"orders": grid.judge["orders"]} if grid.judge else {}
    for run in grid.runs.values():
        if run.is_base:
            continue
        # A setting without a pair rule has the default of scripts/build_pairs.py, which decides nothing there.
        pairing = {key: run.row.get(key) for key in PAIRING_KEYS if key in run.row or key != "rejected"}
        hygiene = {"hygiene": grid.hygiene_of(run) or [PAPER], "seed": run.seed}
        choices[f"{run.name}/{name_data(run.target)}.{MANIFEST}"] = pairing | hygiene
        if tables["judged"]:
            for code in run.evaluated:
                choices[f"{run.name}/arena/{code}.{MANIFEST}"] = {"judge": evaluation["judge"], **orders}
    return choices
