"""The run tables of the shipped configs, without Snakemake."""

import csv
import functools

import yaml
from conftest import ROOT
from snakemake.utils import update_config

from croco.config.schema import Locator, check_config
from croco.grid import Grid


def read_shipped(name, changes=None, rename=None):
    """The Grid of a shipped config, merged into the default as Snakemake does, and ``changes`` into it.

    ``rename`` gives all settings but the base new names.
    """
    config = yaml.safe_load((ROOT / "config/config.yaml").read_text(encoding="utf-8"))
    update_config(config, yaml.safe_load((ROOT / f"config/{name}.yaml").read_text(encoding="utf-8")))
    update_config(config, changes or {})
    for rows, keys in ((config["settings"], ("name", "match")), (config["contrasts"], ("setting", "versus"))):
        for row in rows if rename else ():
            row.update({key: rename(row[key]) for key in keys if key in row})
    locator = Locator([ROOT / f"config/{name}.yaml"])
    check_config(config, ROOT / "config/schema.yaml", locator)
    return Grid(config, read_languages(), locator)


@functools.cache
def read_languages():
    """{code: row} of config/languages.tsv."""
    with open(ROOT / "config/languages.tsv", encoding="utf-8") as file:
        return {row["code"]: row for row in csv.DictReader(file, delimiter="\t")}
