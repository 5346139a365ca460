def translator_of(use):
    return GRID.translators[GRID.prompts[use]["translator"]]


def name_languages(wildcards):
    """The translator's data on both languages, so that a change in another language's row re-runs nothing."""
    return [
        part
        for code in (GRID.config["source_language"], wildcards.language)
        for part in (GRID.known_languages[code]["name"], GRID.known_languages[code]["translation"])
    ]


def options_task_source(task):
    """Options of scripts/translate.py: the rows of a structured task in the source language, and what to translate."""
    row = {**task, "dataset_revision": task.get("revision"), "source_language": GRID.config["source_language"]}
    names = ("fields", "id", "subset", "dataset_revision", "split", "source_language")
    return ["--prompts", GRID.path(task["source"]), *options_of(row, *names)]
