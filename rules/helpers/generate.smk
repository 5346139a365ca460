from croco.examination.declared import options_dataset


def find_policy(wildcards):
    """The config's row of the policy whose responses these are; in a later round, the policy that is tuned."""
    return GRID.policies[wildcards.policy.split("/")[0]]


def sampled_round(wildcards):
    """The run whose checkpoint writes the responses of a later round, or None for an untuned policy's responses."""
    return GRID.round_before(GRID.runs[wildcards.policy]) if wildcards.policy in GRID.runs else None


def options_adapter(option, run):
    return [option, place(f"{run.name}/checkpoint")] if run else []


def rows_checked():
    return [row for rows in GRID.used_models().values() for row in rows]


def paths_checks():
    """The report of each model's check."""
    return [
        place(f"{row['name']}/template.json") if role == "policy" else path_template(role, row["name"])
        for role, rows in GRID.used_models().items()
        for row in rows
    ]
