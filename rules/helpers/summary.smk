# Whether tables and page are made under partial/ from the results that exist so far.
PARTIAL = GRID.config["partial"]


def place_made(path):
    """The path of a table or page of all results."""
    return place(f"partial/{path}" if PARTIAL else path)


def inputs_of_page(files):
    """The inputs of a table or page: all of them, or with `partial` none.

    With `partial` files are not declared as inputs, because Snakemake might re-run the job of an existing file, perhaps
    on a GPU. They are read as they are, and found_so_far shows if they changed.
    """
    return [] if PARTIAL else files


def readable(files):
    """The files that a table or page reads: all of its inputs, or with `partial` those that exist."""
    return [path for path in files if not PARTIAL or Path(path).exists()]


def found_so_far(files):
    """With `partial` the existing files with their sizes and times, otherwise nothing."""
    found = [Path(path) for path in readable(files)] if PARTIAL else []
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in found] or None
