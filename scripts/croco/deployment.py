"""Whether Snakemake can run the jobs in the environments that `--sdm` or a profile asks for."""

import shutil
from collections.abc import Collection, Iterable
from typing import Any

from snakemake_interface_executor_plugins.settings import DeploymentMethod

from croco.errors import InputError

WITHOUT = "start without it (--sdm, or software-deployment-method in a profile)"
# What a rule must declare for a method to have an effect: the attribute of Snakemake's rule, what it
# holds, and how to start Snakemake instead, because jobs inherit its environment.
# All rules of this workflow declare a conda environment.
DECLARED = {
    DeploymentMethod.APPTAINER: ("container_img", "a container image", "inside your site's container"),
    DeploymentMethod.ENV_MODULES: ("env_modules", "environment modules", "after `module load`"),
}


def check_deployment(methods: Collection[DeploymentMethod], rules: Iterable[Any]) -> None:
    """Checks that each method of software deployment is installed or declared by one of Snakemake's rules.

    Raises InputError where a method cannot work, or where all jobs would silently run without it.
    """
    rules = list(rules)
    for method, (attribute, name, instead) in DECLARED.items():
        if method in methods and not any(getattr(rule, attribute) for rule in rules):
            raise InputError(
                f"--sdm {method.item_to_choice()}: no rule of this workflow has {name}, so all jobs would run without",
                f"{WITHOUT}; if you need it, start Snakemake itself {instead}",
            )
    if DeploymentMethod.CONDA in methods and shutil.which("conda") is None:
        raise InputError(
            "--sdm conda: the command conda is not on PATH, so Snakemake cannot make the environments of the jobs",
            f"install or load conda; or {WITHOUT}, and all jobs use the environment of Snakemake",
        )
