def options_imports():
    """Options of scripts/import_results.py: the files, and the names that other harnesses may give our models."""
    options = [
        part
        for row in GRID.config["imports"]
        for part in ("--import", row["name"], GRID.path(row["path"]), row["format"])
    ]
    for name, row in GRID.policies.items():
        options += ["--policy", name, GRID.path(row["path"])]
        options += ["--revision", name, row["revision"]] if "revision" in row else []
    return options + [
        part for row in GRID.config["release"] if "name" in row for part in ("--release", row["run"], row["name"])
    ]


def names_euroeval():
    """The names of the imports that are EuroEval's."""
    return [row["name"] for row in GRID.config["imports"] if row["format"] == "euroeval"]


def paths_beside_summary():
    """The files beside the summary: the comparison with the paper, and imported results if there are any."""
    return [place("comparability.json"), *([place("imported.csv")] if GRID.config["imports"] else [])]
