"""Which parameters go where, and why."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optimizers.parameter_groups import split


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
    assert found["out.weight"] == ("adamw", "output head")
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
    assert found["lm_head.weight"] == ("adamw", "output head")
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
