"""What a user can correct, alone in its module: another wording touches no other code."""


class InputError(Exception):
    """Data or config that the user has to mend: says where (file, line, field), what is wrong, and the remedy."""

    def __init__(self, problem, remedy, path=None, line=None, field=None):
        self.problem = problem
        where = ":".join(str(part) for part in (path, line) if part is not None)
        where = ", ".join(part for part in (where, field and f"field {field}") if part)
        super().__init__(f"{where}: {problem}\n  Remedy: {remedy}" if where else f"{problem}\n  Remedy: {remedy}")
