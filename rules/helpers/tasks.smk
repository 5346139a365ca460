def fill(languages, wildcards):
    """The languages of a job; a job of a single language has it in its wildcard."""
    return [language.format(**wildcards) for language in languages]


def paths_tasks(wildcards, languages, key=None):
    """Data of the own structured tasks in a job's languages, or what their rows say under ``key``."""
    own = GRID.own_tasks(fill(languages, wildcards))
    return (
        [task[key] for task, _ in own] if key else [GRID.task_file(task, code) for task, codes in own for code in codes]
    )
