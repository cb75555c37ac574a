"""Where a model's weights are on this machine, and whether they are fit to be loaded.

Safetensors only, and never code from a repository: a model folder is data.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from imageloom.domain.catalog import Model
from imageloom.domain.errors import BadWeights, ModelNotInstalled
from imageloom.runtime.folders import check_folder

# What a diffusers folder needs; everything else in a repository (pickles, code) stays there.
PATTERNS = ["*.json", "*.txt", "*.safetensors", "*.model"]


def locate(model: Model) -> Path:
    """Return the folder of the model's weights, checked by `check_folder`.

    Raises: ModelNotInstalled, which names the command that gets them; BadWeights.
    """
    kind, _, where = model.source.partition(":")
    if kind == "builtin":
        folder = Path(str(resources.files("imageloom.runtime") / "embedded" / where))
    elif kind == "folder":
        folder = Path(where)
    elif kind == "hub":
        try:
            folder = Path(snapshot_download(where, revision=model.revision, local_files_only=True))
        except LocalEntryNotFoundError as exc:
            raise _not_installed(model) from exc
    else:
        raise BadWeights(f"the model {model.name!r} has a source of unknown kind: {model.source!r}")
    if not folder.is_dir():
        raise _not_installed(model)
    check_folder(folder, name=model.name)
    return folder


def pull(model: Model) -> Path:
    """Download a hub model's weights into the local cache and return their folder.

    Raises: BadWeights where the model does not come from the hub; whatever the hub raises.
    """
    kind, _, where = model.source.partition(":")
    if kind != "hub":
        return locate(model)
    patterns = PATTERNS
    if model.variant:
        # Both precisions are in one repository; only ours is needed.
        patterns = ["*.json", "*.txt", "*.model", f"*.{model.variant}.safetensors"]
    folder = Path(snapshot_download(where, revision=model.revision, allow_patterns=patterns))
    check_folder(folder, name=model.name)
    return folder


def _not_installed(model: Model) -> ModelNotInstalled:
    return ModelNotInstalled(
        f"the weights of the model {model.name!r} are not on this worker; "
        f"run `imageloom models pull {model.name}` there"
    )
