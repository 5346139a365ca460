def paths_scored(wildcards, pattern):
    """As paths_pool, or nothing if the target is `reference` or `prompts`."""
    unscored = find_run(wildcards).row["target"] in ("reference", "prompts")
    return [] if unscored else paths_pool(wildcards, pattern)


def paths_matched(wildcards):
    """The pairs of the setting that this one is matched to."""
    row = find_run(wildcards).row
    return [place(f"{wildcards.model}/{wildcards.pool}/{row['match']}/pairs.jsonl")] if "match" in row else []


def paths_languages(wildcards):
    """The languages of the responses, if the run's hygiene needs them."""
    wanted = GRID.identifies(find_run(wildcards))
    return paths_scored(wildcards, "{model}/{language}/languages.jsonl") if wanted else []


def paths_pool(wildcards, pattern):
    """One file per language of the run's pool, from the policy whose responses it uses."""
    run = find_run(wildcards)
    model, reward = run.responses, run.reward_model
    return [place(pattern.format(model=model, language=language, reward=reward)) for language in run.languages]
