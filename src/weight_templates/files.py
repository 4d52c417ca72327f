"""Files that appear whole or not at all, and safetensors with metadata and a digest."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from .errors import UserError


def expanded(path: str | Path) -> Path:
    """A path whose first ~ or ~NAME stands for a home; raises UserError where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UserError(f"{path} begins with the home of a user whom there is not; give another path.") from None


def write_bytes(path: Path, content: bytes) -> None:
    """Writes a file beside its place, forces it to the disk, and moves it there: never half a file, even at power loss."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.uname().nodename}-{os.getpid()}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def write_json(path: Path, tree: Any) -> None:
    """Writes JSON, whole or not at all."""
    write_bytes(path, (json.dumps(tree, indent=2, sort_keys=True) + "\n").encode())


def write_safetensors(path: Path, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Writes named tensors and JSON metadata with a digest over both, whole or not at all.

    The same content gives the same bytes: the metadata is one entry, since safetensors does not order several.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    text = json.dumps({"about": about, "digest": _digest(arrays, about)}, sort_keys=True)
    write_bytes(path, safetensors.numpy.save(arrays, {"json": text}))


def read_safetensors(path: Path, remedy: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads what `write_safetensors` wrote; raises UserError, ending with `remedy`, where a single bit is not sound."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {})["json"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata["digest"] != _digest(arrays, metadata["about"]):
            raise ValueError("its digest does not match its content")
        return arrays, metadata["about"]
    except Exception as error:  # safetensors raises its own, Unicode and value errors, as the damage will have it
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is corrupt or not ours ({reason}); {remedy}.") from None


def digest_of_file(path: Path) -> str:
    """SHA-256 of a file's content; raises UserError if there is no such file."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"cannot read {path} ({error.strerror}); give the path of a file.") from None


def identity(start: str, remedy: str = "give the path of one, or say `scratch`") -> str:
    """The digest of the file or folder that a network is read from; raises UserError with the remedy if there is none."""
    path = expanded(start)
    if path.is_dir():
        path = path / "model.safetensors"
    if not path.is_file():
        raise UserError(f"there is no bank or model at {start}; {remedy}.")
    return digest_of_file(path)


def header_of(path: Path) -> dict[str, Any] | None:
    """What a file says of itself if `write_safetensors` wrote it, its soundness unchecked; None for any other file."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            return json.loads((file.metadata() or {})["json"])["about"]
    except Exception:  # not safetensors, or another's
        return None


def _digest(arrays: dict[str, np.ndarray], about: dict[str, Any]) -> str:
    total = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(arrays):
        total.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        total.update(arrays[name].reshape(-1).view(np.uint8).data)
    return total.hexdigest()


def cache_folder() -> Path:
    """Where what can be made again is kept: XDG_CACHE_HOME or ~/.cache; raises UserError where there is no home."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "weight-templates"
    except RuntimeError:
        raise UserError("there is no home folder for caches; set HOME or XDG_CACHE_HOME to a folder.") from None
