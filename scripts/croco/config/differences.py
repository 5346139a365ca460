"""Where configs differ, key by key."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any

ABSENT = object()  # a key that a config does not have


def list_differences(configs: Sequence[Any], names: Collection[str], key: str = "") -> Iterator[tuple[str, list[Any]]]:
    """Yields (key, [value per config]) where values differ; ABSENT where a config lacks the key.

    A key has dots. A row of a list is named by the first of its keys in ``names``, else by its number, as in
    `settings.dpo.beta`.
    """
    if all(value is not ABSENT and value == configs[0] for value in configs):
        return
    mappings = [_name_rows(value, names) for value in configs]
    if any(mapping is None for mapping in mappings):
        yield key, list(configs)
        return
    for name in dict.fromkeys(name for mapping in mappings for name in mapping or ()):
        values = [(mapping or {}).get(name, ABSENT) for mapping in mappings]
        yield from list_differences(values, names, f"{key}.{name}".lstrip("."))


def _name_rows(value: Any, names: Collection[str]) -> dict[Any, Any] | None:
    """An object, or a list of rows by name or number, as a dict; None for other values."""
    if isinstance(value, dict):
        return value
    if not isinstance(value, list) or not all(isinstance(row, dict) for row in value):
        return None
    found = [next((row[name] for name in names if name in row), number) for number, row in enumerate(value)]
    return dict(zip(found if len(set(found)) == len(found) else range(len(value)), value, strict=True))
