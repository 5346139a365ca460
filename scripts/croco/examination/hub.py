"""Whether a model's repository on the hub can be read: id, revision, gate and licence."""

from collections.abc import Iterator
from pathlib import Path

from croco.errors import hide_secrets
from croco.examination.findings import ERROR, NOTE, STAGES, WARNING, Finding, Used
from croco.models.loading import ACCEPT_LICENCE

LICENCE_FILE = "README.md"  # with the licence in its YAML header


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
        yield Finding(ERROR, where, what, stage, "correct the hub id, or log in (hf auth login)")
    except RevisionNotFoundError:
        what = f"{used.path} has no revision {revision} on the hub"
        yield Finding(ERROR, where, what, stage, "correct `revision`: a branch, tag or commit of the model")
    except HTTPError as error:
        what = f"the hub did not answer, so that gate and licence are unknown: {hide_secrets(str(error))}"
        yield Finding(WARNING, where, what, stage, "start where the hub can be reached, or run `snakemake stage` there")
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
        what = "HF_HUB_OFFLINE is set, so that gate and licence are unknown"
        yield Finding(WARNING, where, what, stage, "run the doctor once where the hub can be reached")
