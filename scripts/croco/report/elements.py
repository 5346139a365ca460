"""What the sections of the report page consist of: figures with their numbers, tables, and the gaps where files are missing.

A section is a dict: figures [{id, charts: [{title, spec}], alt, caption, table, select}], tables [{caption, columns,
rows, note}]. Nothing in it fails for a file that is not there.
"""

import json
from collections import Counter, defaultdict

import numpy as np
import pandas as pd

BASE = ("untuned", "base")


class Gaps:
    """Collects what is missing, by section: {what: [paths]}, with the command that makes it."""

    def __init__(self, root):
        self.root, self.found = root, defaultdict(dict)

    def has(self, section, path, what):
        """Whether a file is there; where it is not, the section says so."""
        if path.is_file():
            return True
        self.found[section].setdefault(what, []).append(path)
        return False

    def say(self, section, what, command):
        """A gap that is no single file."""
        self.found[section][what] = command

    def of(self, section):
        """[{what, files, command}] of a section."""
        listed = []
        for what, missing in self.found[section].items():
            if isinstance(missing, str):
                listed.append({"what": what, "files": [], "count": None, "command": missing})
                continue
            files = [str(path) for path in dict.fromkeys(missing)]
            listed.append(
                {
                    "what": what,
                    "files": files[:3],
                    "count": len(files),
                    "command": f"snakemake --cores 2 {' '.join(files[:3])}{' ...' if len(files) > 3 else ''}",
                }
            )
        return listed


def embed(value):
    """JSON for a script element: no text in it can end the element, whatever it holds."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text


def name_arm(setting, seed, number):
    """A setting without its replicate's number, with its round where there are several."""
    name = setting.removesuffix(f".s{seed}")
    return name if number == 1 else f"{name} (round {number})"


def name_run(run):
    return f"{run['pool']}/{name_arm(run['setting'], run['seed'], run['round'])}"


def full_name(run):
    return f"{run['model']}/{name_run(run)}"


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def number(value):
    """A finite number, or None."""
    return None if value is None or pd.isna(value) or not np.isfinite(value) else float(value)


def table(caption, columns, lines, note=None):
    return {"caption": caption, "columns": list(columns), "rows": [list(line) for line in lines], "note": note}


def table_of(caption, dicts, note=None):
    columns = list(dict.fromkeys(name for line in dicts for name in line))
    return table(caption, columns, [[line.get(name) for name in columns] for line in dicts], note)


def figure(name, charts, text, caption, numbers, select=None, broad=False):
    """A figure of the page; ``charts`` are [(title or None, specification)], ``numbers`` its table.

    ``select`` names what the page shows one at a time; a ``broad`` one scrolls by itself on a phone.
    """
    return {
        "id": name,
        "charts": [{"title": title, "spec": spec} for title, spec in charts],
        "alt": text,
        "caption": caption,
        "table": numbers,
        "select": select,
        "broad": broad,
    }


def interval(low, high):
    return "" if number(low) is None or number(high) is None else f", {low:.3f} to {high:.3f}"


def sentence(text):
    return f"{text[:1].upper()}{text[1:]}."


def label(reason):
    return reason.replace("_", " ")


def total(parts):
    """The sums of a stacked plot in words."""
    sums = Counter()
    for row in parts:
        sums[row["part"]] += row["count"]
    return "Together: " + ", ".join(f"{part} {count:,}" for part, count in sums.items()) + "."


def reasons(parts):
    merged = Counter()
    for part in parts:
        merged.update(part)
    return ", ".join(f"{label(reason)} {count}" for reason, count in merged.items()) or "none"


def read_number(text):
    try:
        return float(text)
    except (TypeError, ValueError):
        return None


def prefer_all_seeds(lines):
    """Rows of the summary, those over all training seeds first."""
    return lines.sort_values("seed", key=lambda seeds: seeds != "all", kind="stable")
