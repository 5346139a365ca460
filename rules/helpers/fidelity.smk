def paths_fidelity(run):
    """The measures and rewards of a run's answers in all languages; none if the config does not ask for them."""
    files = ["{language}", *(f"{reward}/{{language}}" for reward in GRID.rewards_for(run))]
    return [
        place(f"{run.name}/fidelity/{file.format(language=language)}.jsonl")
        for file in (files if EVALUATION["fidelity"] else [])
        for language in run.evaluated
    ]
