"""Heads, and what else a matrix is for, are found by modules and where they stand, never by a part of a name."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import orthogonal, spectral_norm, weight_norm

from spectune.optimizers import build_optimizer, split


class Model(nn.Module):
    """Modules and parameters, registered in the order given."""

    def __init__(self, **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)


def linear(inputs: int, outputs: int) -> nn.Linear:
    return nn.Linear(inputs, outputs, bias=False)


def convolution() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def block() -> Model:
    return Model(q_head=linear(8, 8), output=linear(8, 8), up=linear(8, 32), down=linear(32, 8))


def tied(model: Model, layer: str, table: str) -> Model:
    model.get_submodule(layer).weight = model.get_submodule(table).weight
    return model


def normed(layer: nn.Module) -> nn.Module:
    return weight_norm(layer)


CASES = {
    "a convolutional net and its classifier": (lambda: Model(features=convolution(), fc=linear(16, 10)), set()),
    "a net with two layers after its convolutions": (
        lambda: Model(features=convolution(), fc1=linear(16, 32), fc2=linear(32, 10)),
        {"fc1.weight"},
    ),
    "a classifier of three layers": (
        lambda: Model(features=convolution(), classifier=nn.Sequential(linear(16, 32), nn.ReLU(), linear(32, 10))),
        {"classifier.0.weight"},
    ),
    "a hidden layer whose name ends as a head's": (
        lambda: Model(q_head=linear(8, 8), k_head=linear(8, 8), mix=linear(8, 8), fc_out=linear(8, 10)),
        {"q_head.weight", "k_head.weight", "mix.weight"},
    ),
    "the same with a head of no known name": (
        lambda: Model(q_head=linear(8, 8), mix=linear(8, 8), answer=linear(8, 10)),
        {"q_head.weight", "mix.weight"},
    ),
    "names of heads inside blocks": (
        lambda: Model(table=nn.Embedding(20, 8), blocks=nn.ModuleList([block()]), project=linear(8, 20)),
        {f"blocks.0.{name}.weight" for name in ("q_head", "output", "up", "down")},
    ),
    "an output of attention and a head beside it": (
        lambda: Model(attention=Model(query=linear(8, 8), output=linear(8, 8)), fc=linear(8, 10)),
        {"attention.query.weight"},
    ),
    "a head that is registered first": (
        lambda: Model(lm_head=linear(8, 20), patches=linear(12, 8), blocks=nn.Sequential(block(), block())),
        {"patches.weight"}
        | {f"blocks.{place}.{name}.weight" for place in (0, 1) for name in ("q_head", "output", "up", "down")},
    ),
    "a head tied to the embedding": (
        lambda: tied(Model(table=nn.Embedding(20, 8), mix=linear(8, 8), out=linear(8, 20)), "out", "table"),
        {"mix.weight"},
    ),
    "an embedding that is the head by a function": (
        lambda: Model(table=nn.Embedding(20, 8), blocks=nn.ModuleList([block()])),
        {f"blocks.0.{name}.weight" for name in ("q_head", "output", "up", "down")},
    ),
    "two heads": (
        lambda: Model(trunk=linear(8, 16), deeper=linear(16, 16), policy=linear(16, 4), value=linear(16, 1)),
        {"trunk.weight", "deeper.weight"},
    ),
    "three heads in a dictionary": (
        lambda: Model(
            trunk=linear(8, 16), heads=nn.ModuleDict({name: linear(16, 3) for name in ("color", "size", "kind")})
        ),
        {"trunk.weight"},
    ),
    "heads of two layers each": (
        lambda: Model(
            trunk=linear(8, 16),
            heads=nn.ModuleList(nn.Sequential(linear(16, 16), nn.ReLU(), linear(16, 2)) for _ in range(2)),
        ),
        {"trunk.weight", "heads.0.0.weight", "heads.1.0.weight"},
    ),
    "a perceptron in a list": (
        lambda: Model(layers=nn.ModuleList([linear(4, 8), linear(8, 8), linear(8, 2)])),
        {"layers.0.weight", "layers.1.weight"},
    ),
    "a perceptron in a sequence": (
        lambda: nn.Sequential(linear(4, 8), nn.ReLU(), linear(8, 8), nn.ReLU(), linear(8, 2)),
        {"0.weight", "2.weight"},
    ),
    "a sequence of blocks alone": (
        lambda: nn.Sequential(*(nn.Sequential(linear(8, 8), nn.ReLU()) for _ in range(3))),
        {"0.0.weight", "1.0.weight"},
    ),
    "a recurrent model": (
        lambda: Model(table=nn.Embedding(9, 4), cells=nn.LSTM(4, 6, num_layers=2), decoder=linear(6, 9)),
        {f"cells.weight_{part}_l{layer}" for part in ("ih", "hh") for layer in (0, 1)},
    ),
    "a recurrent cell": (
        lambda: Model(cell=nn.GRUCell(4, 6), out=linear(6, 9)),
        {"cell.weight_ih", "cell.weight_hh"},
    ),
    "attention alone after its head": (
        lambda: Model(answer=linear(8, 3), attention=nn.MultiheadAttention(8, 2)),
        {"attention.in_proj_weight", "attention.out_proj.weight"},
    ),
    "a fused projection": (
        lambda: Model(attention=nn.MultiheadAttention(8, 2), out=linear(8, 3)),
        {"attention.in_proj_weight", "attention.out_proj.weight"},
    ),
    "a bare matrix beside layers": (
        lambda: Model(mix=linear(8, 8), mystery=nn.Parameter(torch.ones(8, 8)), out=linear(8, 3)),
        {"mix.weight"},
    ),
    "a pair of low rank in layers": (
        lambda: Model(
            table=nn.Embedding(9, 8),
            blocks=nn.ModuleList([Model(base=linear(8, 8), lora_A=linear(8, 2), lora_B=linear(2, 8))]),
            head=linear(8, 9),
        ),
        {f"blocks.0.{name}.weight" for name in ("base", "lora_A", "lora_B")},
    ),
    "a pair of low rank in bare matrices": (
        lambda: Model(
            base=linear(8, 8), A=nn.Parameter(torch.ones(2, 8)), B=nn.Parameter(torch.ones(8, 2)), head=linear(8, 9)
        ),
        {"base.weight"},
    ),
    "parametrized weights": (
        lambda: Model(mix=normed(linear(8, 8)), turn=orthogonal(linear(8, 8)), out=normed(linear(8, 3))),
        {"mix.parametrizations.weight.original1", "turn.parametrizations.weight.original"},
    ),
    "a layer whose class and name speak of norms and embeddings": (
        lambda: Model(embed_in=type("NormalizedLinear", (nn.Linear,), {})(4, 8, bias=False), out=linear(8, 3)),
        {"embed_in.weight"},
    ),
    "one layer": (lambda: linear(3, 4), {"weight"}),
    "one layer and a norm": (lambda: nn.Sequential(linear(3, 4), nn.LayerNorm(4)), {"0.weight"}),
    "factors": (
        lambda: Model(left=nn.Parameter(torch.ones(9, 3)), right=nn.Parameter(torch.ones(8, 3))),
        {"left", "right"},
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_hidden_matrices_are_found_and_nothing_else(case):
    build, expected = CASES[case]
    parts = split(build())
    assert {name for name, _ in parts.matrices} == expected, parts.report()


@pytest.mark.parametrize("name", ["lm_head", "score", "classifier", "qa_outputs", "fc_out", "output", "embed_out"])
def test_heads_of_known_libraries_are_found_wherever_they_are_registered(name):
    for parts in ({name: linear(8, 20)}, {"model": Model(inner=Model(**{name: linear(8, 20)}))}):
        model = Model(**parts, table=nn.Embedding(20, 8), blocks=nn.ModuleList([block(), block()]))
        found = {entry.name: (entry.group, entry.reason) for entry in split(model).assignments}
        [head] = [each for each in found if each.endswith(f"{name}.weight") and "blocks" not in each]
        assert found[head] == ("adamw", "output head by its name")
        assert found["blocks.0.output.weight"] == ("matrices", "matrix")


def test_the_report_says_why_a_matrix_is_left_to_adamw_and_what_to_do():
    model = Model(mix=linear(8, 8), scale=Model(mystery=nn.Parameter(torch.ones(8, 8))), out=linear(8, 3))
    why = {entry.name: entry.reason for entry in split(model).assignments}
    assert why["scale.mystery"] == "of a module whose use is not known, Model; name it in `matrices` if it is a map"
    assert why["out.weight"] == "output head, the last linear layer"
    asked = split(model, matrices=["*.mystery", "out.*"], adamw=["mix.*"])
    assert {name for name, _ in asked.matrices} == {"scale.mystery", "out.weight"}


def test_looking_at_a_model_changes_nothing_of_it():
    model = Model(mix=spectral_norm(linear(8, 8)), out=spectral_norm(linear(8, 3)))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = {entry.name: entry.group for entry in split(model).assignments}
    assert found == {
        "mix.parametrizations.weight.original": "matrices",
        "out.parametrizations.weight.original": "adamw",
    }
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_convolutional_net_without_a_hidden_layer_says_what_it_has():
    with pytest.raises(ValueError, match=r"(?s)Muon needs a matrix.*flatten=True.*fc.weight .*output head"):
        build_optimizer(CASES["a convolutional net and its classifier"][0](), "muon")
    model = CASES["a convolutional net and its classifier"][0]()
    assert build_optimizer(model, "muon", parts=split(model, flatten=True)).param_groups[0]["flatten"]
