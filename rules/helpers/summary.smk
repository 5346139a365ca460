# Whether tables and page are made of what exists so far, under partial/.
PARTIAL = GRID.config["partial"]


def place_made(path):
    """Where a table or page of all results goes."""
    return place(f"partial/{path}" if PARTIAL else path)


def inputs_of_page(files):
    """The inputs of a table or page: all of them, or with `partial` none.

    A file that exists may have a job that Snakemake would run again for its own reasons, on a GPU perhaps; so with
    `partial` files are no inputs but read as they are, and found_so_far tells when there are others.
    """
    return [] if PARTIAL else files


def readable(files):
    """The files that a table or page reads: all of its inputs, or with `partial` those that exist."""
    return [path for path in files if not PARTIAL or Path(path).exists()]


def found_so_far(files):
    """With `partial` those of the files that exist, with their sizes and times; else nothing."""
    found = [Path(path) for path in readable(files)] if PARTIAL else []
    return [[str(path), path.stat().st_size, path.stat().st_mtime_ns] for path in found] or None
