"""Images with labels: scikit-learn's digits, or a local folder of CIFAR-10.

Digits are 1797 images of 8 x 8 grey pixels that come with scikit-learn. CIFAR-10 is the folder `cifar-10-batches-py` as
its authors pack it; its five training batches are read, the test batch is left for whoever has finished tuning. A tenth
of the images, the same ones always, is the validation split.

The files are pickles: only numpy arrays are unpickled, anything else is refused. What they hold is written once into a
cache file, a row of label and pixels for each image, which the processes of a node map into memory and share. Its name
is a hash of the files; it is written under a temporary name and renamed, so that processes may build it together.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spectune.trainers.data.text import cache_folder
from spectune.trainers.seeds import generator_for

CIFAR_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_CIFAR_SHAPE = (3, 32, 32)
_DIGITS_SHAPE = (1, 8, 8)
_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"): ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"): ("numpy", "ndarray"),
    ("numpy", "dtype"): ("numpy", "dtype"),
    ("_codecs", "encode"): ("_codecs", "encode"),
}


class ImagesError(ValueError):
    """A folder that holds no such images.

    Attributes:
        message: What is wrong, without the path.
        path: The folder or the file.
    """

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(f"{message}: got {str(path)!r}")
        self.message = message
        self.path = path


class Split:
    """Some images, as they are stored until they are asked for.

    Args:
        rows: (count, 1 + pixels) uint8: the label, then the pixels.
        shape: Of an image, (channels, side, side).
        members: The rows that belong to the split.
        scale: Mean and deviation of each channel of the training split, (channels, 1, 1) fp32 both.
    """

    def __init__(
        self, rows: Tensor, shape: tuple[int, int, int], members: Tensor, scale: tuple[Tensor, Tensor]
    ) -> None:
        self._rows, self._shape, self._members, self._scale = rows, shape, members, scale

    def __len__(self) -> int:
        return len(self._members)

    def take(self, chosen: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (len(chosen), channels, side, side) fp32, normalised by channel, and their labels, int64."""
        rows = self._rows[self._members[chosen]]
        mean, deviation = self._scale
        return (rows[:, 1:].reshape(-1, *self._shape).float() - mean) / deviation, rows[:, 0].long()


@dataclass(frozen=True)
class Images:
    """Images by split."""

    train: Split
    validation: Split


def check_images(folder: Path | None) -> None:
    """Refuse a folder with a batch missing or damaged; a file is read again only when it has changed.

    Raises:
        ImagesError: Naming the file.
    """
    if folder is None:
        return
    if not folder.is_dir():
        raise ImagesError("there is no such folder", folder)
    for path in _batches(folder):
        if not path.is_file():
            raise ImagesError("a batch of CIFAR-10 is missing", path)
    for path in _batches(folder):
        status = path.stat()
        _check_batch(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=4)
def read_images(folder: Path | None) -> Images:
    """Map images into memory, building their cache file first where there is none.

    Raises:
        ImagesError: A file is missing or holds something else.
    """
    check_images(folder)
    rows, shape = (_digits(), _DIGITS_SHAPE) if folder is None else (_cifar(folder, cache_folder()), _CIFAR_SHAPE)
    order = torch.randperm(len(rows), generator=generator_for("images validation"))
    held_out, kept = order[: len(rows) // 10], order[len(rows) // 10 :]
    scale = _scale(rows, kept, shape)
    return Images(Split(rows, shape, kept, scale), Split(rows, shape, held_out, scale))


def _scale(rows: Tensor, members: Tensor, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Measure each channel's mean and deviation from counts of the 256 values, which are exact and take no memory."""
    channels, counts = shape[0], torch.zeros(shape[0], 256, dtype=torch.float64)
    for some in torch.split(members, 1000):
        pixels = rows[some][:, 1:].reshape(len(some), channels, -1)
        for channel in range(channels):
            counts[channel] += torch.bincount(pixels[:, channel].flatten(), minlength=256)
    values, number = torch.arange(256, dtype=torch.float64), counts.sum(dim=1, keepdim=True)
    mean = (counts * values).sum(dim=1, keepdim=True) / number
    variance = (counts * (values - mean).square()).sum(dim=1, keepdim=True) / (number - 1)
    return mean[..., None].float(), variance.sqrt()[..., None].float()


def _digits() -> Tensor:
    from sklearn.datasets import load_digits  # takes a second, and only this needs it

    digits = load_digits()
    return torch.from_numpy(np.column_stack([digits.target, digits.data]).astype(np.uint8))


def _cifar(folder: Path, cache: Path) -> Tensor:
    """Map the cache file of a folder; its layout is that of CIFAR-10's binary version."""
    digest = hashlib.sha256()
    try:
        for path in _batches(folder):
            digest.update(path.read_bytes())
        made = cache / f"cifar-{digest.hexdigest()[:32]}.npy"
        if not made.exists():
            _build(folder, made)
        rows = np.load(made, mmap_mode="c")  # "c": see text.py
    except (OSError, ValueError) as error:
        raise ImagesError(f"cannot be read or cached ({error})", folder) from error
    return torch.from_numpy(rows)


def _build(folder: Path, made: Path) -> None:
    rows = np.concatenate([np.column_stack([labels, pixels]) for pixels, labels in map(_batch, _batches(folder))])
    made.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=made.parent, prefix=".cifar-", suffix=".partial", delete=False) as file:
        try:
            np.save(file, rows)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
            os.replace(file.name, made)
        except BaseException:
            os.unlink(file.name)
            raise


def _batches(folder: Path) -> list[Path]:
    return [folder / name for name in CIFAR_BATCHES]


@lru_cache(maxsize=64)
def _check_batch(path: Path, _size: int, _changed_ns: int) -> None:
    _batch(path)


def _batch(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read one batch: its pixels (count, 3072) and labels (count,), both uint8."""
    try:
        with path.open("rb") as file:
            content = _ArraysOnly(file, encoding="bytes").load()
        pixels, labels = np.asarray(content[b"data"]), np.asarray(content[b"labels"])
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ImagesError(f"not a batch of CIFAR-10 ({type(error).__name__})", path) from error
    if pixels.dtype != np.uint8 or pixels.shape != (len(labels), 3072) or not len(labels):
        raise ImagesError(f"a batch holds uint8 images of 3072 numbers, this one {pixels.dtype} {pixels.shape}", path)
    if labels.dtype.kind != "i" or labels.min() < 0 or labels.max() > 9:
        raise ImagesError("labels of CIFAR-10 are 0 to 9", path)
    return pixels, labels.astype(np.uint8)


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that makes numpy arrays, and runs nothing."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
        return super().find_class(*_ALLOWED[module, name])
