def find_policy(wildcards):
    """The config's row of the policy whose responses these are; in a later round, the policy that is tuned."""
    return GRID.policies[wildcards.policy.split("/")[0]]


def sampled_round(wildcards):
    """The run whose checkpoint writes the responses of a later round, or None for an untuned policy's responses."""
    return GRID.round_before(GRID.runs[wildcards.policy]) if wildcards.policy in GRID.runs else None


def options_adapter(option, run):
    return [option, place(f"{run.name}/checkpoint")] if run else []
