"""The byte-level decoder and its batches."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from spectune.optimizers import split
from spectune.trainers.data.text import read_text
from spectune.trainers.seeds import generator_for
from spectune.trainers.tasks.language_model import Decoder, LanguageModel
from spectune.trainers.tasks.options import TaskOptionError
from spectune.trainers.tasks.transformer import rotate


@pytest.fixture
def task(corpus: Path) -> LanguageModel:
    return LanguageModel(width=16, depth=2, heads=2, context=24, batch_size=4, validation_batches=3, corpus=str(corpus))


def decoder(task: LanguageModel, seed: int = 1) -> Decoder:
    return task.build(generator_for("model", seed))


def test_a_batch_is_a_function_of_seed_and_step_alone(task: LanguageModel) -> None:
    first = task.batch(3, 5)
    task.batch(4, 5)
    torch.rand(3)
    assert all(torch.equal(a, b) for a, b in zip(first, task.batch(3, 5), strict=True))
    assert not torch.equal(first[0], task.batch(4, 5)[0])
    assert not torch.equal(first[0], task.batch(3, 6)[0])


def test_targets_are_the_next_bytes_of_the_training_files(task: LanguageModel, corpus: Path) -> None:
    inputs, targets = task.batch(0, 5)
    assert inputs.shape == targets.shape == (4, 24)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    train = bytes(read_text(corpus).train.tolist())
    assert all(bytes([*row.tolist(), last]) in train for row, last in zip(inputs, targets[:, -1].tolist(), strict=True))


def test_every_window_of_a_split_can_be_drawn_and_none_beyond_it(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    for name in ("abcd", "efgh", "ijkl"):
        (folder / name).write_text(name)
    task = LanguageModel(context=3, batch_size=200, corpus=str(folder))
    task.check()
    inputs, _ = task.batch(0, 0)
    assert len({tuple(row) for row in inputs.tolist()}) == len(read_text(folder).train) - 3


def test_a_model_that_knows_nothing_has_the_entropy_of_a_byte(task: LanguageModel) -> None:
    assert task.evaluate(decoder(task), 0)["validation_loss"] == pytest.approx(math.log(256), abs=0.1)


def test_validation_is_the_same_for_every_seed_and_never_sees_training_files(task: LanguageModel) -> None:
    model = decoder(task)
    with torch.no_grad():
        assert task.evaluate(model, 0) == task.evaluate(model, 1)
    validation = bytes(read_text(Path(str(task.corpus))).validation.tolist())
    windows = [row for inputs, _ in task._validation_windows() for row in inputs]
    assert len(windows) == 3 * 4
    assert all(bytes(row.tolist()) in validation for row in windows)


@pytest.mark.parametrize("options", [{}, {"feed_forward": "gelu"}, {"tied_embeddings": True}])
def test_no_position_sees_a_later_byte(task: LanguageModel, options: dict[str, Any]) -> None:
    task = dataclasses.replace(task, **options)
    model, inputs = decoder(task), task.batch(0, 0)[0]
    changed = inputs.clone()
    changed[:, 12:] = (changed[:, 12:] + 1) % 256
    with torch.no_grad():
        before, after = model(inputs), model(changed)
    torch.testing.assert_close(before[:, :12], after[:, :12])
    assert not torch.allclose(before[:, 12:], after[:, 12:])


def test_positions_matter_and_only_their_distance(task: LanguageModel) -> None:
    """Rotary attention over equal bytes sees distances; a repeated prefix moved by one place keeps its scores."""
    model = decoder(task).double()
    query, key = torch.randn(2, 24, 8, dtype=torch.float64, generator=generator_for("test"))
    turned_query = rotate(query[:1].expand(24, 8), model.rotations.double())
    turned_key = rotate(key[:1].expand(24, 8), model.rotations.double())
    scores = turned_query @ turned_key.mT
    torch.testing.assert_close(scores[5, 3], scores[15, 13], rtol=1e-6, atol=1e-6)
    assert not torch.isclose(scores[5, 3], scores[5, 4])


def test_tying_shares_one_matrix(task: LanguageModel) -> None:
    tied = decoder(dataclasses.replace(task, tied_embeddings=True))
    assert [name for name, _ in decoder(task).named_parameters() if name not in dict(tied.named_parameters())] == [
        "head.weight"
    ]


@pytest.mark.parametrize("tied", [False, True])
def test_every_matrix_of_a_block_is_one_for_a_spectral_optimizer_and_nothing_else_is(
    task: LanguageModel, tied: bool
) -> None:
    model = decoder(dataclasses.replace(task, tied_embeddings=tied))
    names = [name for name, parameter in model.named_parameters() if name.startswith("blocks.") and parameter.ndim == 2]
    assert len(names) == 2 * 7
    assert [name for name, _ in split(model).matrices] == names


def test_weights_come_from_the_generator_and_leave_torchs_own_stream_alone(task: LanguageModel) -> None:
    state = torch.get_rng_state()
    model, same, other = decoder(task), decoder(task), decoder(task, seed=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), same.parameters(), strict=True))
    assert not torch.equal(model.embedding.weight, other.embedding.weight)


def test_matrices_start_at_their_stated_scale(corpus: Path) -> None:
    model = decoder(LanguageModel(width=128, depth=2, corpus=str(corpus)))
    weights = dict(model.named_parameters())
    assert weights["embedding.weight"].std().item() == pytest.approx(0.02, rel=0.05)
    assert weights["blocks.0.attention.query.weight"].std().item() == pytest.approx(128**-0.5, rel=0.05)
    assert weights["blocks.1.attention.mix.weight"].std().item() == pytest.approx((4 * 128) ** -0.5, rel=0.05)
    assert weights["blocks.1.feed_forward.down.weight"].std().item() == pytest.approx((4 * 344) ** -0.5, rel=0.05)
    assert set(weights["norm.weight"].tolist()) == {1.0}


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"width": 0}, "width"),
        ({"width": 20, "heads": 4}, "width"),
        ({"depth": 0}, "depth"),
        ({"batch_size": 0}, "batch_size"),
        ({"validation_batches": 0}, "validation_batches"),
        ({"feed_forward": "relu"}, "feed_forward"),
        ({"context": 1_000_000}, "context"),
        ({"context": 30_000}, "corpus"),
        ({"corpus": "/nowhere/at/all"}, "corpus"),
        ({"corpus": ""}, "corpus"),
        ({"width": 10**6}, "width"),
        ({"width": 8192, "depth": 96}, "width"),
        ({"batch_size": 65_536, "context": 1024}, "batch_size"),
        ({"depth": 10**6}, "depth"),
        ({"batch_size": 10**9}, "batch_size"),
        ({"validation_batches": 10**9}, "validation_batches"),
        ({"vocabulary": 255}, "vocabulary"),
        ({"vocabulary": 10**9}, "vocabulary"),
        ({"rope_base": 1.0}, "rope_base"),
        ({"feed_forward_width": 0}, "feed_forward_width"),
    ],
)
def test_impossible_options_are_refused_by_name(task: LanguageModel, options: dict[str, Any], option: str) -> None:
    with pytest.raises(TaskOptionError) as caught:
        dataclasses.replace(task, **options).check()
    assert caught.value.option == option


def test_a_missing_corpus_is_refused_with_its_path_also_where_nobody_checked() -> None:
    task = LanguageModel(corpus="/nowhere/at/all")
    with pytest.raises(TaskOptionError, match=r"corpus: there is no such folder: got '/nowhere/at/all'"):
        task.batch(0, 0)


def test_check_reads_no_corpus(task: LanguageModel, cache_folder: Path) -> None:
    task.check()
    assert not cache_folder.exists()


def test_a_limit_is_named_with_the_value() -> None:
    with pytest.raises(TaskOptionError, match="width: must be at most 8192: got 1000000"):
        LanguageModel(width=10**6).check()


def test_a_pinned_corpus_that_changes_is_refused_with_both_fingerprints(task: LanguageModel, corpus: Path) -> None:
    pinned = task.pinned()
    assert pinned.corpus_fingerprint == read_text(corpus).fingerprint
    pinned.check()
    moved = corpus.parent / "moved"
    corpus.rename(moved)
    dataclasses.replace(pinned, corpus=str(moved)).check()
    (moved / "0.txt").write_text("another text")
    changed = moved.rename(corpus.parent / "changed")
    now = dataclasses.replace(task, corpus=str(changed)).pinned().corpus_fingerprint
    message = f"corpus: has changed: fingerprint {now}, this was made with {pinned.corpus_fingerprint}: got '{changed}'"
    with pytest.raises(TaskOptionError) as caught:
        dataclasses.replace(pinned, corpus=str(changed)).check()
    assert str(caught.value) == message


def test_an_overlong_corpus_is_named_once() -> None:
    name = "/" + "x" * 300
    with pytest.raises(TaskOptionError) as caught:
        LanguageModel(corpus=name).check()
    assert str(caught.value).count("x" * 300) == 1
