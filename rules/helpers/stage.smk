from croco.examination.declared import options_dataset
from croco.pins import DATASET, MODEL, NEWEST, list_items


def options_stage():
    """Options of scripts/stage.py: what this config takes from elsewhere, each once; not what the workflow makes."""
    items = list(list_items(GRID))
    options, seen = [], set()
    for item in items:
        revision = item.revision or "-"
        if item.kind == MODEL:
            options += ["--model", item.name, item.path, revision]
        elif item.kind == DATASET:
            options += options_dataset(GRID, item)
        elif item.is_local or (item.path, item.revision or NEWEST) not in seen:
            options += ["--tokenizer", item.path, revision]
        seen.add((item.path, item.revision or NEWEST))
    suite = list(dict.fromkeys(name for names in GRID.suites.values() for name in names))
    return options + (["--suite", *suite] if suite else [])
