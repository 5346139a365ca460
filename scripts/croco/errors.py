"""The error for faults that a user can correct."""

import re
from os import PathLike

# What stands before the host in an address; the limits keep long texts quick. A slash may be part of a password, but digits before it are a port.
USER_INFO = (
    r"(?<=://)[^\s/?#:\[\"<>]{0,300}(?::|%3[Aa])(?:[^\s/?#\"<>]{0,300}|(?!\d{0,5}[/?#])[^\s\"<>]{0,300})@"
    r"|(?:(?<=http://)|(?<=https://))[^\s/?#\"<>]{1,300}@"  # a name or a token alone
)
QUERY = r"(?<=/)([^\s?(\"'<>]{0,300})\?[\w.%~-]{1,300}=[^\s\"'<>]*"


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
        problem = hide_secrets(problem)  # it may quote an error of a library
        self.problem, self.remedy = problem, remedy
        where = ":".join(str(part) for part in (path, line) if part is not None)
        where = ", ".join(part for part in (where, field and f"field {field}") if part)
        super().__init__(f"{where}: {problem}\n  Remedy: {remedy}" if where else f"{problem}\n  Remedy: {remedy}")


def hide_secrets(text: str) -> str:
    """A text without user names, passwords and queries in its addresses: a query may be a signature or a token."""
    return re.sub(QUERY, r"\1", re.sub(USER_INFO, "", text))
