"""Which parameters go where, and why."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from spectune.optimizers import Muon, build_optimizer
from spectune.optimizers.parameters.parameter_groups import split


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2)
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width, bias=False)


class Decoder(nn.Module):
    def __init__(self, *, tied=False, head_first=False):
        super().__init__()
        if head_first:
            self.lm_head = nn.Linear(8, 20, bias=False)
        self.token_table = nn.Embedding(20, 8)
        self.pos = nn.Parameter(torch.zeros(5, 8))
        self.blocks = nn.ModuleList(Block(8) for _ in range(2))
        self.convolution = nn.Conv1d(8, 8, 3)
        self.gate = nn.Parameter(torch.ones(1, 8))
        if not head_first:
            self.out = nn.Linear(8, 20, bias=False)
        if tied:
            self.out.weight = self.token_table.weight


def groups(parts):
    return {entry.name: (entry.group, entry.reason) for entry in parts.assignments}


def test_a_decoder_is_split_by_what_its_parameters_are():
    found = groups(split(Decoder()))
    assert found["blocks.1.up.weight"] == ("matrices", "matrix")
    assert found["blocks.0.attention.in_proj_weight"] == ("matrices", "matrix")
    assert found["token_table.weight"] == ("adamw", "embedding")
    assert found["out.weight"] == ("adamw", "output head, the last linear layer")
    assert found["pos"] == ("adamw", "embedding by its name")
    assert found["blocks.0.norm.weight"] == ("adamw", "1-dimensional")
    assert found["blocks.0.up.bias"] == ("adamw", "1-dimensional")
    assert found["convolution.weight"] == ("adamw", "3-dimensional")
    assert found["gate"] == ("adamw", "a vector, with a dimension of size one")


def test_every_parameter_is_in_exactly_one_group():
    for model in (Decoder(), Decoder(tied=True), Decoder(head_first=True), nn.Linear(3, 4), nn.Identity()):
        parts = split(model)
        assigned = [id(parameter) for _, parameter in parts.matrices + parts.rest]
        assert len(assigned) == len(set(assigned))
        assert set(assigned) == {id(parameter) for parameter in model.parameters()}
        assert len(parts.assignments) == len(assigned)


def test_a_head_is_found_by_its_name_wherever_it_stands():
    found = groups(split(Decoder(head_first=True)))
    assert found["lm_head.weight"] == ("adamw", "output head by its name")
    assert found["blocks.1.down.weight"] == ("matrices", "matrix")


def test_a_tied_head_goes_with_its_embedding_whichever_comes_first():
    found = groups(split(Decoder(tied=True)))
    assert found["token_table.weight"] == ("adamw", "embedding, tied to out.weight")
    assert "out.weight" not in found
    model = nn.ModuleDict(
        {"first": nn.Linear(8, 20, bias=False), "table": nn.Embedding(20, 8), "last": nn.Linear(8, 8)}
    )
    model["first"].weight = model["table"].weight
    assert groups(split(model))["first.weight"] == ("adamw", "embedding, tied to first.weight")


def test_two_parameters_on_one_storage_go_the_same_way():
    model = nn.ModuleDict({"map": nn.Linear(8, 20), "table": nn.Embedding(20, 8), "other": nn.Linear(8, 8)})
    model["map"].weight = nn.Parameter(model["table"].weight.detach())
    found = groups(split(model))
    assert found["map.weight"][0] == found["table.weight"][0] == "adamw"


def test_parameters_on_the_meta_device_are_told_apart():
    with torch.device("meta"):
        assert groups(split(Decoder())) == groups(split(Decoder()))
        assert groups(split(Decoder()))["blocks.0.up.weight"] == ("matrices", "matrix")


def test_plain_factors_and_a_single_layer_are_matrices():
    factors = nn.ParameterDict({"left": torch.zeros(20, 5), "right": torch.zeros(30, 5)})
    assert {group for group, _ in groups(split(factors)).values()} == {"matrices"}
    assert groups(split(nn.Linear(3, 4)))["weight"] == ("matrices", "matrix")


def test_patterns_overrule_and_say_so():
    parts = split(Decoder(), matrices=["token_table.*"], adamw=["blocks.0.*"])
    found = groups(parts)
    assert found["token_table.weight"] == ("matrices", "asked by 'token_table.*'")
    assert found["blocks.0.up.weight"] == ("adamw", "asked by 'blocks.0.*'")


def test_a_pattern_that_cannot_be_followed_is_refused():
    with pytest.raises(ValueError, match=r"got 'blocks.7.*'"):
        split(Decoder(), adamw=["blocks.7.*"])
    with pytest.raises(ValueError, match=r"both groups: got '\*up.weight' and 'blocks.0.\*'"):
        split(Decoder(), matrices=["*up.weight"], adamw=["blocks.0.*"])
    with pytest.raises(ValueError, match=r"got shape \(8,\)"):
        split(Decoder(), matrices=["*.norm.weight"])


def test_the_report_has_a_line_for_each_parameter_and_the_sums():
    lines = split(Decoder()).report().splitlines()
    assert len(lines) == len(list(Decoder().parameters())) + 1
    assert ["token_table.weight", "20×8", "adamw", "embedding"] in [line.split() for line in lines]
    assert lines[-1].startswith("matrices: 8 parameters, 1,024 numbers; adamw: ")


class Vision(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.grouped = nn.Conv2d(8, 8, 3, groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, groups=8)
        self.up = nn.ConvTranspose2d(8, 8, 2)
        self.pointwise = nn.Conv1d(1, 8, 1)
        self.attention = nn.MultiheadAttention(8, 2)
        self.out = nn.Linear(8, 4)


def test_convolutions_are_flattened_where_it_is_asked_for_and_are_maps():
    found = groups(split(Vision(), flatten=True))
    assert found["stem.weight"] == ("matrices", "convolution, flattened to 8×27")
    assert found["grouped.weight"] == ("matrices", "convolution, flattened to 8×36, in 2 blocks of 4 rows")
    assert found["depthwise.weight"] == ("adamw", "a vector for each channel, depthwise")
    assert found["up.weight"] == ("adamw", "4-dimensional")
    assert found["pointwise.weight"] == ("adamw", "a vector, with a dimension of size one")
    assert found["stem.bias"] == ("adamw", "1-dimensional")
    assert groups(split(Vision()))["stem.weight"] == ("adamw", "4-dimensional")
    assert groups(split(Vision(), flatten=True, adamw=["stem.*"]))["stem.weight"][0] == "adamw"
    asked = groups(split(Vision(), flatten=True, matrices=["up.weight"]))
    assert asked["up.weight"] == ("matrices", "asked by 'up.weight', flattened to 8×32")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"split_sizes": {"*.in_proj_weight": (8, 12, 4)}}, "matrix, in blocks of 8, 12, 4 rows"),
        ({"num_heads": {"attention.in_proj*t": 3}}, "matrix, in 3 blocks of 8 rows"),
    ],
)
def test_a_fused_projection_is_split_where_it_is_asked_for(options, told):
    parts = split(Vision(), **options)
    assert groups(parts)["attention.in_proj_weight"] == ("matrices", told)
    split_up, plain = parts.groups()
    assert [name for name, _ in plain["params"]] == ["attention.out_proj.weight"]
    assert [name for name, _ in split_up["params"]] == ["attention.in_proj_weight"]
    assert split_up.get("split_sizes", split_up.get("num_heads")) in ([8, 12, 4], 3)


def test_an_optimizer_is_built_of_what_was_flattened_and_split():
    model = Vision()
    parts = split(model, flatten=True, num_heads={"*.in_proj_weight": 3})
    optimizer = build_optimizer(model, "muon", parts=parts, lr=0.1)
    views = [
        (group["param_names"], {key: group[key] for key in ("flatten", "num_heads") if key in group})
        for group in optimizer.param_groups[:-2]
    ]
    assert views == [
        (["stem.weight"], {"flatten": True}),
        (["grouped.weight"], {"flatten": True, "num_heads": 2}),
        (["attention.in_proj_weight"], {"num_heads": 3}),
        (["attention.out_proj.weight"], {}),
    ]
    assert all(group["initial_lr"] == 0.1 for group in optimizer.param_groups[:-2])
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    assert all(not torch.equal(parameter, before[name]) for name, parameter in model.named_parameters())
    Muon([*parts.groups(), {"params": list(parts.rest), "algorithm": "adamw"}])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_sizes": {"qkv": (8,)}}, "no parameter has a name like the pattern: got 'qkv'"),
        ({"num_heads": {"qkv": 3}}, "got 'qkv'"),
        ({"split_sizes": {"*in_proj_weight": (8, 8)}}, r"attention.in_proj_weight .* add up to 24: got \[8, 8\]"),
        ({"num_heads": {"*in_proj_weight": 5}}, "divides its 24 rows: got 5"),
        (
            {"num_heads": {"*in_proj_weight": 3}, "split_sizes": {"att*weight": (24,)}},
            "either split_sizes or num_heads",
        ),
        (
            {"num_heads": {"out.weight": 2}},
            r"out.weight is asked to be split but goes to AdamW \(output head, .*\): got",
        ),
        ({"matrices": ["stem.weight"]}, r"stem.weight is asked to be a matrix: got shape \(8, 3, 3, 3\)"),
        ({"matrices": ["stem.bias"], "flatten": True}, r"got shape \(8,\)"),
    ],
)
def test_a_split_that_cannot_be_made_is_refused_with_name_and_value(options, message):
    with pytest.raises(ValueError, match=message):
        split(Vision(), **options)


def test_parts_of_another_model_are_refused():
    with pytest.raises(ValueError, match=r"same model: got 16 parameters in neither, \['stem.weight'"):
        build_optimizer(Vision(), "muon", parts=split(Vision()))
    with pytest.raises(ValueError, match="adamw trains every parameter alike: got parts of 16 parameters"):
        build_optimizer(Vision(), "adamw", parts=split(Vision()))


LAYERS = {
    "linear": lambda: nn.Linear(4, 4),
    "lm_head": lambda: nn.Linear(4, 7, bias=False),
    "table": lambda: nn.Embedding(7, 4),
    "convolution": lambda: nn.Conv2d(4, 4, 3, groups=2),
    "depthwise": lambda: nn.Conv1d(4, 4, 3, groups=4),
    "norm": lambda: nn.LayerNorm(4),
    "router": lambda: nn.Linear(4, 2),
    "attention": lambda: nn.MultiheadAttention(4, 2),
    "free": lambda: nn.ParameterDict({"left": torch.zeros(3, 4), "scale": torch.zeros(())}),
}


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_whatever_the_model_every_parameter_is_in_exactly_one_group_and_tied_ones_go_together(data):
    kinds = data.draw(st.lists(st.sampled_from(list(LAYERS)), max_size=7))
    model = nn.ModuleDict({f"{kind}{place}": LAYERS[kind]() for place, kind in enumerate(kinds)})
    tables = [layer for layer in model.values() if isinstance(layer, nn.Embedding)]
    heads = [layer for name, layer in model.items() if name.startswith("lm_head")]
    how = data.draw(st.sampled_from(["not", "object", "storage"]))
    if tables and heads and how != "not":
        weight = tables[0].weight
        heads[0].weight = weight if how == "object" else nn.Parameter(weight.detach())
    names = [name for name, _ in model.named_parameters()]
    asked = data.draw(st.lists(st.sampled_from(names), max_size=2)) if names else []
    parts = split(model, flatten=data.draw(st.booleans()), adamw=asked)
    in_groups = [id(parameter) for group in parts.groups() for _, parameter in group["params"]]
    everything = in_groups + [id(parameter) for _, parameter in parts.rest]
    assert sorted(everything) == sorted(id(parameter) for parameter in model.parameters())
    assert [entry.name for entry in parts.assignments] == names
    assert {name for name, _ in parts.rest} >= set(asked)
    if tables and heads and how != "not":
        assert {id(tables[0].weight), id(heads[0].weight)}.isdisjoint(in_groups)
    if in_groups:
        Muon(parts.groups())  # each is what its group says
