"""The programs of this interpreter's environment, as messages name them: a user need not have activated it."""

import shlex
import sys
from pathlib import Path


def name_program(name: str) -> str:
    """Path of a program of the environment, relative to the working directory where it is below it.

    ``name`` itself where there is none, so that the shell looks for it.
    """
    path = Path(sys.prefix, "bin", name)  # a warm process has an interpreter elsewhere
    if not path.is_file():
        return name
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def name_command(name: str, *arguments: str) -> str:
    """The command line that runs a program with arguments, quoted for a shell."""
    return shlex.join([name_program(name), *arguments])


# Remedies that several places name.
STAGE = f"{name_command('snakemake', 'stage', '--cores', '1')}, with the same config files"
ACCEPT_LICENCE = (
    f"accept its licence on the hub with the account of your token, and log in ({name_command('hf', 'auth', 'login')})"
)
