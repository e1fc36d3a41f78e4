"""The vision transformer: digits, a folder of CIFAR-10, its augmentation and what is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spectune.trainers.data.images import read_images
from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks import TaskOptionError, VisionTransformer
from spectune.trainers.tasks.vision_transformer import _moved_and_flipped


@pytest.fixture
def cifar(tmp_path: Path) -> Path:
    """A folder as CIFAR-10's authors pack it, ten images a batch."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for number in range(1, 6):
        content = {b"data": draw.integers(0, 256, (10, 3072), dtype=np.uint8), b"labels": list(range(10))}
        (folder / f"data_batch_{number}").write_bytes(pickle.dumps(content, protocol=2))
    return folder


def test_digits_are_split_once_and_normalised() -> None:
    images = read_images(None)
    (train, labels), (held_out, theirs) = (
        split.take(torch.arange(len(split))) for split in (images.train, images.validation)
    )
    assert (len(train) + len(held_out), len(held_out), labels.unique().tolist()) == (1797, 179, list(range(10)))
    assert train.shape[1:] == (1, 8, 8)
    assert train.mean().item() == pytest.approx(0.0, abs=1e-5)
    assert train.std().item() == pytest.approx(1.0, rel=1e-4)
    assert labels.dtype == theirs.dtype == torch.int64
    seen = {tuple(image.flatten().tolist()) for image in train}
    assert not any(tuple(image.flatten().tolist()) in seen for image in held_out)


def test_a_model_that_knows_nothing_has_ln_10() -> None:
    task = VisionTransformer(width=16, depth=1, heads=2)
    measured = task.evaluate(task.build(generator_for("model", 0)), 0)
    assert measured["validation_loss"] == pytest.approx(np.log(10), abs=0.1)
    assert 0.0 <= measured["validation_accuracy"] < 0.3


def test_a_folder_of_cifar_is_read_and_augmented_by_seed_and_step(cifar: Path) -> None:
    task = VisionTransformer(width=16, depth=1, heads=2, batch_size=8, images=str(cifar))
    task.check()
    pixels, labels = task.batch(0, 1)
    assert (pixels.shape, labels.shape) == ((8, 3, 32, 32), (8,))
    assert torch.equal(pixels, task.batch(0, 1)[0])
    assert not torch.equal(pixels, task.batch(1, 1)[0])
    assert task.loss(task.build(generator_for("model", 0)), (pixels, labels)).shape == ()


def test_images_come_as_they_are_stored_from_one_file_that_processes_share(cifar: Path, cache_folder: Path) -> None:
    contents = [pickle.loads((cifar / f"data_batch_{number}").read_bytes()) for number in range(1, 6)]
    stored = torch.from_numpy(np.concatenate([content[b"data"] for content in contents]))
    known = {tuple(row.tolist()): label for row, label in zip(stored, 5 * list(range(10)), strict=True)}
    images = read_images(cifar)
    assert (len(images.train), len(images.validation)) == (45, 5)
    pixels, labels = images.train.take(torch.arange(45))
    deviation, mean = images.train._scale[1], images.train._scale[0]
    raw = (pixels.double() * deviation + mean).round().to(torch.uint8).flatten(1)
    assert [known[tuple(row.tolist())] for row in raw] == labels.tolist()
    exact = torch.std_mean(raw.view(45, 3, -1).transpose(0, 1).flatten(1).double(), dim=1)
    torch.testing.assert_close(
        torch.stack(exact), torch.stack([deviation, mean]).double().flatten(1), rtol=1e-6, atol=0
    )
    assert [path.suffix for path in cache_folder.iterdir()] == [".npy"]


def test_a_batch_that_changes_is_checked_again(cifar: Path) -> None:
    task = VisionTransformer(images=str(cifar))
    task.check()
    (cifar / "data_batch_2").write_bytes(b"nothing")
    with pytest.raises(TaskOptionError, match="data_batch_2"):
        task.check()


def test_augmentation_moves_by_at_most_an_eighth_and_flips_half() -> None:
    image = torch.zeros(400, 1, 16, 16)
    image[:, 0, 8, 4] = 1.0
    moved = _moved_and_flipped(image, generator_for("test"))
    assert moved.shape == image.shape
    rows, columns = zip(*[divmod(int(each.argmax()), 16) for each in moved[:, 0].flatten(1)], strict=True)
    assert set(rows) == {6, 7, 8, 9, 10}
    assert set(columns) == {2, 3, 4, 5, 6} | {9, 10, 11, 12, 13}
    assert sum(column > 7 for column in columns) / 400 == pytest.approx(0.5, abs=0.1)


class Harmful:
    """What a pickle could run."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("harm-was-done",)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "data_batch_3").unlink(), "a batch of CIFAR-10 is missing.*data_batch_3"),
        (lambda f: (f / "data_batch_3").write_bytes(b"nothing"), "not a batch of CIFAR-10.*data_batch_3"),
        (lambda f: (f / "data_batch_3").write_bytes(pickle.dumps({b"data": Harmful()})), "UnpicklingError"),
        (
            lambda f: (f / "data_batch_3").write_bytes(pickle.dumps({b"data": np.zeros((2, 9)), b"labels": [0, 1]})),
            "a batch holds uint8 images",
        ),
    ],
)
def test_a_damaged_folder_is_refused_by_file_and_runs_nothing(cifar: Path, damage: Any, message: str) -> None:
    damage(cifar)
    task = VisionTransformer(images=str(cifar))
    for use in (task.check, lambda: task.batch(0, 0)):
        with pytest.raises(TaskOptionError, match=message) as caught:
            use()
        assert caught.value.option == "images"
    assert not Path("harm-was-done").exists()


def test_a_missing_batch_is_found_before_anything_is_read(cifar: Path) -> None:
    (cifar / "data_batch_5").unlink()
    with pytest.raises(TaskOptionError, match=r"images: a batch of CIFAR-10 is missing: got '.*data_batch_5'"):
        VisionTransformer(images=str(cifar)).check()


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"width": 30, "heads": 4}, "width"),
        ({"patch": 3}, "patch"),
        ({"patch": 0}, "patch"),
        ({"depth": 1000}, "depth"),
        ({"images": ""}, "images"),
        ({"images": "/nowhere/at/all"}, "images"),
        ({"batch_size": 10**8}, "batch_size"),
    ],
)
def test_impossible_options_are_refused_by_name(options: dict[str, Any], option: str) -> None:
    with pytest.raises(TaskOptionError) as caught:
        VisionTransformer(**options).check()
    assert caught.value.option == option
