"""What an examination reports, and the models of a config that it looks at."""

from typing import Any, NamedTuple

from croco.grid import Grid

ERROR, WARNING, NOTE = SEVERITIES = "error", "warning", "note"
STAGES = {"policy": "generate", "reward": "score", "judge": "judge", "translator": "translate"}


class Finding(NamedTuple):
    """Something that will go wrong, or a NOTE to read; ``when``: the stage that would have shown it."""

    severity: str
    where: str
    what: str
    when: str
    remedy: str


class Used(NamedTuple):
    """A model as the config uses it: its role (policy, reward, judge, translator) and its row."""

    role: str
    row: dict[str, Any]
    path: str

    def __str__(self) -> str:
        return f"{self.role} {self.row['name']}"


def list_models(grid: Grid) -> list[Used]:
    """The models that the run loads, except those that the workflow makes itself."""
    rows = grid.used_models()
    used = [Used(role, row, grid.path(row["path"])) for role, of_role in rows.items() for row in of_role]
    return [model for model in used if not model.path.startswith(f"{grid.results}/")]
