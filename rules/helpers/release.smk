def release_row(wildcards):
    """The config's row of a release."""
    name = f"{wildcards.model}/{wildcards.pool}/{wildcards.setting}"
    return next((row for row in GRID.config["release"] if row["run"] == name), {"run": name, "weights": "merged"})


def paths_releases(wildcards):
    if not GRID.config["release"]:
        raise WorkflowError("release: name what to bundle, e.g. --config 'release=[{run: mini/multi/dpo}]'")
    return [place(f"release/{row['run']}/manifest.json") for row in GRID.config["release"]]
