"""Whether the hub answers, and whether a model's repository there can be read: id, revision, gate and licence."""

import os
from collections.abc import Iterator
from pathlib import Path

from croco.commands import ACCEPT_LICENCE, STAGE, name_command
from croco.errors import hide_secrets
from croco.examination.declared import list_datasets
from croco.examination.findings import ERROR, NOTE, STAGES, WARNING, Finding, Used, list_models
from croco.grid import Grid

LICENCE_FILE = "README.md"  # with the licence in its YAML header
PATIENCE = 10.0  # seconds for an answer of the hub
NOT_ASKED = "the hub is not asked (HF_HUB_OFFLINE)"


def examine_connection(grid: Grid) -> Iterator[Finding]:
    """Whether the hub answers, if the config has something of it; where it does not, this process asks it no more.

    Otherwise each model and dataset would wait for several attempts. To be called before `datasets` is imported.
    """
    from huggingface_hub import constants, is_offline_mode
    from huggingface_hub.errors import HTTPError
    from huggingface_hub.utils import get_session

    paths = [*(used.path for used in list_models(grid)), *(item.path for item in list_datasets(grid))]
    if is_offline_mode() or all(Path(path).exists() for path in paths):
        return
    try:
        get_session().head(constants.ENDPOINT, timeout=PATIENCE)
    except HTTPError as error:
        os.environ["HF_HUB_OFFLINE"], constants.HF_HUB_OFFLINE = "1", True
        where = hide_secrets(constants.ENDPOINT)
        what = f"the hub cannot be reached ({hide_secrets(str(error))}): only what is in its cache was examined"
        yield Finding(WARNING, where, what, "stage", "run the doctor once where the hub can be reached")


def examine_repository(used: Used) -> Iterator[Finding]:
    """The licence and gate of a hub model; an error where its id or revision does not exist or access is denied."""
    from huggingface_hub import auth_check, is_offline_mode, model_info
    from huggingface_hub.errors import GatedRepoError, HTTPError, RepositoryNotFoundError, RevisionNotFoundError

    if Path(used.path).is_dir():
        return
    where, stage, revision = str(used), STAGES[used.role], used.row.get("revision")
    if is_offline_mode():
        yield from examine_cached_card(used)
        return
    try:
        info = model_info(used.path, revision=revision)
        if info.gated:
            auth_check(used.path)
    except GatedRepoError:
        yield Finding(ERROR, where, f"{used.path} is gated, and your account has no access", stage, ACCEPT_LICENCE)
    except RepositoryNotFoundError:
        what = f"there is no model {used.path} on the hub, or it is private"
        remedy = f"correct the hub id, or log in ({name_command('hf', 'auth', 'login')})"
        yield Finding(ERROR, where, what, stage, remedy)
    except RevisionNotFoundError:
        what = f"{used.path} has no revision {revision} on the hub"
        yield Finding(ERROR, where, what, stage, "correct `revision`: a branch, tag or commit of the model")
    except HTTPError as error:
        what = f"the hub did not answer, so that gate and licence are unknown: {hide_secrets(str(error))}"
        yield Finding(WARNING, where, what, stage, f"start where the hub can be reached, or run there: {STAGE}")
    else:
        licence = getattr(info.card_data, "license", None) or "none stated"
        gate = f"gated ({info.gated}), and your account has access" if info.gated else "not gated"
        yield Finding(
            NOTE, where, f"{used.path}: licence {licence}, {gate}", stage, "read the licence before a release"
        )


def examine_cached_card(used: Used) -> Iterator[Finding]:
    """The licence in the hub's cache on this machine, where the hub must not be asked."""
    import yaml
    from huggingface_hub import ModelCard, try_to_load_from_cache

    where, stage = str(used), STAGES[used.role]
    card = try_to_load_from_cache(used.path, LICENCE_FILE, revision=used.row.get("revision"))
    if isinstance(card, str):
        try:
            licence = ModelCard.load(card, ignore_metadata_errors=True).data.get("license")
        except (ValueError, TypeError, yaml.YAMLError):  # the card's header is broken
            licence = None
        what = f"{used.path}: licence {licence or 'none stated'}"
        yield Finding(NOTE, where, what, stage, "read the licence before a release")
    else:
        what = f"{NOT_ASKED}, so that gate and licence are unknown"
        yield Finding(WARNING, where, what, stage, "run the doctor once where the hub can be reached")
