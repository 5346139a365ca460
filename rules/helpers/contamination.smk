from croco.evaluation.tasks import list_question_fields


def paths_contamination(languages, starts):
    """The checks of blocks in these languages, and in the source language, in which the prompts are selected."""
    codes = dict.fromkeys([GRID.config["source_language"], *languages])
    return [place(f"prompts/{code}/{start}.contamination.json") for code in codes for start in starts]


def question_fields(task):
    """Fields of a task's question."""
    try:
        return list_question_fields(task["yaml"])
    except InputError as error:
        raise WorkflowError(str(error)) from error
