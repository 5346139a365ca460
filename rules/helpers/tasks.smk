def fill(languages, wildcards):
    """The languages of a job; a job of a single language has it in its wildcard."""
    return [language.format(**wildcards) for language in languages]


def paths_tasks(wildcards, languages):
    """Data of the own structured tasks in a job's languages."""
    own = GRID.own_tasks(fill(languages, wildcards))
    return [GRID.task_file(task, code) for task, codes in own for code in codes]
