"""Where a model's weights are on this machine, and whether they are fit to be loaded.

Safetensors and ONNX only, and never code from a repository: a model folder is data.
"""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from imageloom.domain.catalog import Model, is_method
from imageloom.domain.errors import BadWeights, InvalidParams, ModelNotInstalled
from imageloom.runtime.folders import check_folder, check_swin2sr

# What a model folder needs; everything else in a repository (pickles, code) stays there.
PATTERNS = ["*.json", "*.txt", "*.safetensors", "*.model"]
# How to prepare a picture for an .onnx file, as transformers writes it beside one.
SIDECAR = "preprocessor_config.json"


def locate(model: Model) -> Path:
    """Return the folder of the model's weights, or the file of a `file:` source.

    A folder is checked by what its kind of model asks for: see `runtime.folders`.
    Raises: ModelNotInstalled, which names the command that gets them; BadWeights; InvalidParams
    for a method that has none.
    """
    kind, _, where = model.source.partition(":")
    if is_method(model):
        raise InvalidParams(f"the model {model.name!r} needs no weights", param="model")
    if kind == "file":
        file = Path(where)
        if not file.is_file():
            raise _moved_away(model)
        return file
    if kind == "folder":
        folder = Path(where)
        if not folder.is_dir():
            raise _moved_away(model)
    elif kind == "builtin":
        folder = Path(str(resources.files("imageloom.runtime") / "embedded" / where))
    elif kind == "hub":
        try:
            folder = Path(snapshot_download(where, revision=model.revision, local_files_only=True))
        except LocalEntryNotFoundError as exc:
            raise _not_installed(model) from exc
    else:
        raise BadWeights(f"the model {model.name!r} has a source of unknown kind: {model.source!r}")
    if not folder.is_dir():
        raise _not_installed(model)
    _check(folder, model)
    return folder


def pull(model: Model) -> Path:
    """Download a hub model's weights into the local cache and return their folder.

    Of another source, return what `locate` does.
    Raises: BadWeights where it is not fit to be loaded; whatever `locate` or the hub raises.
    """
    kind, _, where = model.source.partition(":")
    if kind != "hub":
        return locate(model)
    patterns = PATTERNS
    if model.variant:
        # Both precisions are in one repository; only ours is needed.
        patterns = ["*.json", "*.txt", "*.model", f"*.{model.variant}.safetensors"]
    folder = Path(snapshot_download(where, revision=model.revision, allow_patterns=patterns))
    _check(folder, model)
    return folder


def parts_of_file(path: Path) -> tuple[Path, ...]:
    """Return the files that loading the file `path` reads, in a fixed order.

    Beside an .onnx file these are its weights, where they are in files of their own
    (`NAME.onnx.data`, `NAME.onnx_data`), and the `preprocessor_config.json` of its folder.
    """
    if path.suffix.lower() != ".onnx":
        return (path,)
    apart = (f"{path.name}.data", f"{path.name}_data")
    beside = sorted(file for file in path.parent.iterdir() if file.name.startswith(apart))
    config = path.parent / SIDECAR
    return (path, *beside, *([config] if config.is_file() else []))


def _check(folder: Path, model: Model) -> None:
    if model.family == "swin2sr":
        check_swin2sr(folder, name=model.name)
    elif model.kind == "base":
        check_folder(folder, name=model.name)
    else:
        raise BadWeights(
            f"the {model.kind} {model.name!r} has the folder {model.source!r}; "
            f"the family {model.family!r} needs a file"
        )


def _not_installed(model: Model) -> ModelNotInstalled:
    return ModelNotInstalled(
        f"the weights of the model {model.name!r} are not on this worker; "
        f"run `imageloom models pull {model.name}` there"
    )


def _moved_away(model: Model) -> ModelNotInstalled:
    return ModelNotInstalled(
        f"the weights of the model {model.name!r} are not on this worker where they were when it "
        f"was added; put them back, or run `imageloom models add {model.name} --path PATH`"
    )
