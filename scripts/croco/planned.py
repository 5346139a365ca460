"""What a config plans by stage, written as plan.json before anything runs and read by the report page."""

from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec

from croco.errors import InputError


@dataclass(frozen=True)
class PlannedStage:
    """The jobs of a stage together.

    Attributes:
        items: responses, scored responses, rows seen in training, answers, or verdict calls; None where the config does
            not say how many prompts there are.
        tokens: sampled ones, of a training those trained on; estimated.
        gpu_hours: by config/speeds.tsv, None for a stage that asks for no GPU.
    """

    stage: str
    jobs: int
    loads: int
    items: int | None
    tokens: int
    gpu_hours: float | None


@dataclass(frozen=True)
class Planned:
    """The plan of a config; ``gpu_type`` is the row of config/speeds.tsv that its hours are for."""

    gpu_type: str
    stages: list[PlannedStage]

    def to_row(self) -> dict:
        """A JSON object with every field."""
        return asdict(self)


def read_planned(path: Path) -> Planned:
    """The plan in a file; raises InputError if it is not one."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Planned)
    except (OSError, msgspec.MsgspecError) as error:
        raise InputError(
            f"not a plan ({error})", "let the workflow write it: snakemake RESULTS/plan.json", path
        ) from error
