def paths_fidelity(run):
    """Files on a run's answers without a judge, and their rewards, of all languages; none where these are not asked for."""
    files = ["{language}", *(f"{reward}/{{language}}" for reward in GRID.rewards_for(run))]
    return [
        place(f"{run.name}/fidelity/{file.format(language=language)}.jsonl")
        for file in (files if EVALUATION["fidelity"] else [])
        for language in run.evaluated
    ]
