"""Vision transformer: images cut into patches, classified (ROOT tunes its percentile on one of these).

Patches are mapped into the stream, positions are learned, pre-norm blocks with full attention follow, and the mean over
the positions goes through the head. The loss is the mean cross entropy in nats; a model that knows nothing has
ln 10 = 2.303. Scikit-learn's digits by default; `images` names a local folder of CIFAR-10.

`augment` moves images by up to an eighth of their side, the border filled with zeros, and flips them left to right; by
default CIFAR-10 is augmented and digits, of which several would turn into others, are not.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from spectune.trainers.data.images import Images, ImagesError, check_images, read_images
from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks.options import LARGEST_BATCH, TaskOptionError, check_options, check_together, option
from spectune.trainers.tasks.task import TRAINING_METRICS, Batch, TaskOptions, place
from spectune.trainers.tasks.transformer import Block, initialize, inside_width, matrix

EMBEDDING_STD = 0.02
_EVALUATED_TOGETHER = 512
_SIDES = {"digits": (1, 8), "cifar": (3, 32)}


@dataclass(frozen=True)
class VisionTransformer(TaskOptions):
    """Classify small images."""

    width: int = option(64, "Size of the residual stream, a multiple of the heads.", at_least=1, at_most=8192)
    depth: int = option(4, "Blocks.", at_least=1, at_most=96)
    heads: int = option(4, "Attention heads.", at_least=1, at_most=128)
    patch: int | None = option(
        None,
        "Side of a patch; null for 2 with digits (8 x 8) and 4 with CIFAR-10 (32 x 32).",
        at_least=1,
    )
    feed_forward: Literal["swiglu", "gelu"] = option(
        "gelu", "swiglu (three matrices, 8/3 width inside) or gelu (two, 4 width inside)."
    )
    batch_size: int = option(128, "Images of a batch.", at_least=1, at_most=65_536)
    images: str | None = option(None, "A folder cifar-10-batches-py; null for scikit-learn's digits.")
    augment: bool | None = option(None, "Whether images are moved and flipped; null for CIFAR-10 alone.")

    name: ClassVar[str] = "vision_transformer"
    metrics: ClassVar[tuple[str, ...]] = (*TRAINING_METRICS, "validation_loss", "validation_accuracy")

    @property
    def items_per_step(self) -> int:
        """Images."""
        return self.batch_size

    def check(self) -> None:
        """Refuse impossible sizes, and a folder whose batches are not all there and whole."""
        check_options(self)
        if self.width % self.heads:
            raise TaskOptionError("width", f"must be a multiple of {self.heads}, the heads", self.width)
        channels, side = self._shape()
        pixels = self.batch_size * channels * side * side
        check_together("batch_size", self.batch_size, pixels, at_most=LARGEST_BATCH, words="pixels of a batch")
        if side % self._patch():
            raise TaskOptionError("patch", f"must divide {side}, the side of an image", self.patch)
        if self.images == "":
            raise TaskOptionError("images", "must name a folder, or be null", self.images)
        try:
            check_images(self._folder())
        except ImagesError as error:
            raise TaskOptionError("images", error.message, str(error.path)) from error

    def build(self, generator: torch.Generator) -> PatchClassifier:
        """Make the model; what its layers draw for themselves is thrown away, and torch's own stream put back."""
        with torch.random.fork_rng(devices=[]):
            model = PatchClassifier(self, *self._shape(), self._patch())
        small = ("positions.", "head.")
        initialize(model, generator, depth=self.depth, small=small, std=EMBEDDING_STD)
        return model

    def batch(self, step: int, seed: int) -> Batch:
        """Return (images (batch_size, channels, side, side) fp32, labels), drawn with replacement and augmented."""
        train = self._images().train
        generator = generator_for("vision_transformer", seed, step)
        pixels, labels = train.take(torch.randint(len(train), (self.batch_size,), generator=generator))
        augmented = self.images is not None if self.augment is None else self.augment
        return (_moved_and_flipped(pixels, generator) if augmented else pixels), labels

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Mean cross entropy in nats per image."""
        pixels, labels = batch
        return functional.cross_entropy(model(pixels), labels)

    def measure(self, model: nn.Module, seed: int) -> dict[str, Tensor]:
        """Measure loss and accuracy on the validation images, which no seed moves."""
        validation = self._images().validation
        loss, right = [], []
        for some in torch.split(torch.arange(len(validation)), _EVALUATED_TOGETHER):
            placed, targets = place(validation.take(some), model)
            logits = model(placed).float()
            loss.append(functional.cross_entropy(logits, targets, reduction="sum").double())
            right.append((logits.argmax(dim=-1) == targets).sum())
        count = len(validation)
        return {
            "validation_loss": torch.stack(loss).sum() / count,
            "validation_accuracy": torch.stack(right).sum() / count,
        }

    def _shape(self) -> tuple[int, int]:
        return _SIDES["digits" if self.images is None else "cifar"]

    def _patch(self) -> int:
        return self.patch or (2 if self.images is None else 4)

    def _folder(self) -> Path | None:
        return None if self.images is None else Path(self.images)

    def _images(self) -> Images:
        try:
            return read_images(self._folder())
        except ImagesError as error:
            raise TaskOptionError("images", error.message, str(error.path)) from error


class PatchClassifier(nn.Module):
    """The transformer: images (batch, channels, side, side) to logits (batch, 10)."""

    def __init__(self, task: VisionTransformer, channels: int, side: int, patch: int) -> None:
        super().__init__()
        self.patch = patch
        inside = inside_width(task.feed_forward, task.width)
        self.patches = matrix(channels * patch * patch, task.width)
        self.positions = nn.Embedding((side // patch) ** 2, task.width)
        self.blocks = nn.ModuleList(
            Block(task.width, task.heads, task.feed_forward, inside, causal=False) for _ in range(task.depth)
        )
        self.norm = nn.RMSNorm(task.width)
        self.head = matrix(task.width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of the ten classes."""
        cut = functional.unfold(images, self.patch, stride=self.patch).transpose(1, 2)
        stream = self.patches(cut) + self.positions.weight
        for block in self.blocks:
            stream = block(stream)
        logits: Tensor = self.head(self.norm(stream).mean(dim=1))
        return logits


def _moved_and_flipped(images: Tensor, generator: torch.Generator) -> Tensor:
    """Move each image by its own offset, zeros coming in, and flip each with probability a half."""
    count, channels, side, _ = images.shape
    most = side // 8
    padded = functional.pad(images, (most,) * 4)
    offsets = torch.randint(2 * most + 1, (2, count, 1), generator=generator)
    rows, columns = offsets + torch.arange(side)
    flipped = torch.rand(count, 1, generator=generator) < 0.5
    columns = torch.where(flipped, columns.flip(1), columns)
    index = torch.arange(count)[:, None, None, None], torch.arange(channels)[None, :, None, None]
    moved: Tensor = padded[*index, rows[:, None, :, None], columns[:, None, None, :]]
    return moved
