"""Time limits of jobs, from the work that they have."""

import math
from collections.abc import Mapping
from pathlib import Path

from croco.grid import Grid
from croco.planning.speed import Measured, Speed, estimate, read_speeds
from croco.planning.work import Facts, work_of

# A limit is so many times the planned time: speeds are estimates, and texts longer than average.
GENEROSITY = 3
UNMEASURED = Measured({}, {})


class Limits:
    """Minutes that jobs need by the plan, for one type of GPU.

    Args:
        grid: the run table; ``speeds``: config/speeds.tsv. The GPU is the config's ``gpu_type``, else the slowest one.
    """

    def __init__(self, grid: Grid, speeds: Path) -> None:
        table = read_speeds(speeds)
        self.speed = table.get(grid.config.get("gpu_type", ""), min(table.values(), key=_sampling_speed))
        # Files of the run are not read, so that a limit does not depend on how far it is.
        self.facts = Facts(grid, reads_results=False)

    def minutes(self, rule: str, wildcards: Mapping[str, str], gpus: int) -> int:
        """The time limit of a job on its GPUs; 0 for a job without."""
        if not gpus:
            return 0
        seconds = estimate(work_of(self.facts, rule, wildcards), gpus, self.speed, UNMEASURED).seconds / gpus
        return math.ceil(GENEROSITY * seconds / 60)


def _sampling_speed(speed: Speed) -> float:
    return speed.tflops * speed.sampling
