"""The error for faults that a user can correct."""

from os import PathLike


class InputError(Exception):
    """Data or config that the user has to fix: says where (file, line, field), what is wrong, and the remedy."""

    def __init__(
        self,
        problem: str,
        remedy: str,
        path: str | PathLike | None = None,
        line: int | None = None,
        field: str | None = None,
    ) -> None:
        self.problem, self.remedy = problem, remedy
        where = ":".join(str(part) for part in (path, line) if part is not None)
        where = ", ".join(part for part in (where, field and f"field {field}") if part)
        super().__init__(f"{where}: {problem}\n  Remedy: {remedy}" if where else f"{problem}\n  Remedy: {remedy}")
