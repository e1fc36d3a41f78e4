"""Images with labels: scikit-learn's digits, or a local folder of CIFAR-10.

Digits are 1797 images of 8 x 8 grey pixels that come with scikit-learn. CIFAR-10 is the folder `cifar-10-batches-py` as
its authors pack it; its five training batches are read, the test batch is left for whoever has finished tuning. A tenth
of the images, the same ones always, is the validation split.

The files are pickles: only numpy arrays are unpickled, anything else is refused.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from trainers.seeds import generator_for

CIFAR_BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_CIFAR_SHAPE = (3, 32, 32)
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


@dataclass(frozen=True)
class Images:
    """Images (count, channels, side, side) in fp32, of mean 0 and deviation 1 a channel; labels (count,) int64."""

    train: tuple[Tensor, Tensor]
    validation: tuple[Tensor, Tensor]
    num_classes: int


def check_images(folder: Path | None) -> None:
    """Refuse a folder with a batch missing.

    Raises:
        ImagesError: Naming what is missing.
    """
    if folder is None:
        return
    if not folder.is_dir():
        raise ImagesError("there is no such folder", folder)
    for name in CIFAR_BATCHES:
        if not (folder / name).is_file():
            raise ImagesError("a batch of CIFAR-10 is missing", folder / name)


@lru_cache(maxsize=4)
def read_images(folder: Path | None) -> Images:
    """Read images and normalise them by the training split's channels.

    Raises:
        ImagesError: A file is missing or holds something else.
    """
    check_images(folder)
    pixels, labels = _digits() if folder is None else _cifar(folder)
    order = torch.randperm(len(labels), generator=generator_for("images validation"))
    held_out, kept = order[: len(labels) // 10], order[len(labels) // 10 :]
    deviation, mean = torch.std_mean(pixels[kept], dim=(0, 2, 3), keepdim=True)
    normal = (pixels - mean) / deviation
    return Images((normal[kept], labels[kept]), (normal[held_out], labels[held_out]), int(labels.max()) + 1)


def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits  # takes a second, and only this needs it

    digits = load_digits()
    return torch.from_numpy(digits.images).float()[:, None], torch.from_numpy(digits.target).long()


def _cifar(folder: Path) -> tuple[Tensor, Tensor]:
    batches = [_batch(folder / name) for name in CIFAR_BATCHES]
    pixels = torch.cat([pixels for pixels, _ in batches])
    return pixels.view(-1, *_CIFAR_SHAPE).float(), torch.cat([labels for _, labels in batches])


def _batch(path: Path) -> tuple[Tensor, Tensor]:
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
    return torch.from_numpy(pixels.copy()), torch.from_numpy(labels.astype(np.int64))


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that makes numpy arrays, and runs nothing."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
        return super().find_class(*_ALLOWED[module, name])
