"""Models that people bring: each trains as one stack and gives what it gives alone, or one sentence says why not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from spectune.trainers import Schedule, SoloTrial, TrialSetting
from spectune.trainers.engines.cohorts import SoloCohort, cohort_for
from spectune.trainers.engines.fusibility import fusion_problem
from spectune.trainers.tasks import TaskOptions
from spectune.trainers.tasks.task import Batch
from tests.trainers.test_population import admitted, deviation, targets


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.RNNBase]) -> None:
        super().__init__()
        self.cells = kind(4, 5, batch_first=True)
        self.head = nn.Linear(5, 3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(self.cells(images)[0][:, -1])
        return out


class Features(nn.Module):
    """A linear map of features that are not trained."""

    def __init__(self, features: Tensor, *, as_buffer: bool = True) -> None:
        super().__init__()
        if as_buffer:
            self.register_buffer("features", features)
        else:
            self.features = features
        self.last = nn.Linear(8, 3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.last((images.flatten(1) @ self.features.to(images)).tanh())
        return out


class Spare(nn.Module):
    """A linear map with another beside it that nothing uses."""

    def __init__(self) -> None:
        super().__init__()
        self.spare = nn.Linear(7, 7)
        self.head = nn.Linear(16, 3)

    def forward(self, images: Tensor) -> Tensor:
        out: Tensor = self.head(images.flatten(1))
        return out


def layers(*inside: nn.Module, width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), *inside, nn.Linear(width, 3))


def convolutions(*inside: nn.Module, width: int) -> nn.Module:
    first = nn.Conv2d(1, 4, 3, padding=1)
    return nn.Sequential(nn.Unflatten(1, (1, 4)), first, *inside, nn.Flatten(), nn.Linear(width, 6), nn.Linear(6, 3))


def frozen() -> nn.Module:
    model = layers()
    next(model.parameters()).requires_grad_(False)
    return model


NETS: dict[str, Callable[[], nn.Module]] = {
    "layers": lambda: layers(nn.ReLU(inplace=True)),
    "convolution": lambda: convolutions(nn.GroupNorm(2, 4), nn.MaxPool2d(2), width=16),
    "fixed features": lambda: Features(torch.eye(16, 8)),
    "dropout": lambda: layers(nn.Dropout(0.5)),
    "batch norm": lambda: layers(nn.BatchNorm1d(8)),
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "attention": lambda: nn.Sequential(
        nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True), nn.Flatten(), nn.Linear(16, 3)
    ),
    "frozen": frozen,
    "spare": Spare,
    "drawn buffer": lambda: Features(torch.randn(16, 8)),
    "drawn constant": lambda: Features(torch.randn(16, 8), as_buffer=False),
}
FUSIBLE = ("layers", "convolution", "fixed features")
REASONS = {
    "dropout": "draws random numbers",
    "batch norm": "changes the model's buffer 2.running_mean",
    "lstm": "aten::lstm",
    "gru": "aten::gru",
    "attention": "aten::_scaled_dot_product_flash_attention_for_cpu",
    "frozen": "the parameter 1.weight is not trained",
    "spare": "gives the parameter spare.weight no gradient",
    "drawn buffer": "buffer features differs between seeds",
    "drawn constant": "depends on more than the model's parameters and the batch",
}


@dataclass(frozen=True)
class Brought(TaskOptions):
    """Classify noise by a net of `NETS`."""

    net: str = "layers"

    name: ClassVar[str] = "brought"

    def build(self, generator: torch.Generator) -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(torch.randint(10**6, (1,), generator=generator)))
            return NETS[self.net]()

    def batch(self, step: int, seed: int) -> Batch:
        draw = torch.Generator().manual_seed(1000 * seed + step)
        return torch.randn(12, 4, 4, generator=draw), torch.randint(3, (12,), generator=draw)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        return functional.cross_entropy(model(batch[0]), batch[1])

    def evaluate(self, model: nn.Module, seed: int) -> dict[str, float]:
        return {"validation_loss": 0.0}


def settings_of(net: str, optimizer: str) -> dict[int, TrialSetting]:
    exact = {"compute_dtype": "float64"} if optimizer == "muon" else {}
    return {
        trial: TrialSetting(
            Brought(net=net),
            optimizer,
            {"lr": 0.01 * (1 + trial), **exact},
            Schedule(),
            10,
            trial,
            trial // 2,
            precision="fp64",
        )
        for trial in range(3)
    }


def test_every_net_is_said_something_about() -> None:
    assert set(NETS) == {*FUSIBLE, *REASONS}


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("net", FUSIBLE)
def test_a_net_that_can_be_fused_gives_what_it_gives_alone(net: str, optimizer: str) -> None:
    assert fusion_problem(Brought(net=net)) is None
    settings = settings_of(net, optimizer)
    cohort = admitted(settings)
    cohort.advance(targets(cohort, 5))
    for trial, each in settings.items():
        alone = SoloTrial(each)
        alone.advance(5)
        assert deviation(cohort.state(trial), alone.state()) < 1e-12


@pytest.mark.parametrize("net", REASONS)
def test_a_net_that_cannot_be_fused_is_told_why_in_a_sentence_and_trains_alone(net: str) -> None:
    """Frozen, spare and drawn ones were fused once, and trained to other weights than alone."""
    problem = fusion_problem(Brought(net=net))
    assert problem is not None
    assert REASONS[net] in problem
    assert len(problem) < 160
    setting = settings_of(net, "adamw")[0]
    cohort = cohort_for(setting, is_alone=False)
    assert isinstance(cohort, SoloCohort)
    cohort.admit(0, setting)
    assert cohort.advance({0: 2}) == {0: "reached"}
