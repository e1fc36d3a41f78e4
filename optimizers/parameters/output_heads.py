"""The output heads of a model: the linear layers whose result nothing else takes.

Nothing is run, so they are found by structure: where a layer is registered, and how wide it is.

    blocks      what is repeated (an element of a `ModuleList`, one of several alike in a `Sequential`) is hidden
    tied        a layer that shares its weight with an embedding is the head, and with it found
    by name     outside blocks, layers with one of `HEAD_NAMES` as a whole name, as Hugging Face and torchvision use
    last        the last linear layer outside blocks, and layers right before it that stand beside it: they take as
                many inputs as it does, and none after them takes as many as they give; after a head by name only if
                no layer of the model takes as many as it gives

A model's only layer has no other beside it and is no head. A model with an embedding and no linear layer outside blocks
has none either: its head is the embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from torch import nn

HEAD_NAMES: Final = frozenset(
    [
        *("aux_classifier", "classifier", "cls_head", "embed_out", "fc_out", "head", "heads", "lm_head", "logits"),
        *("out_head", "output", "output_head", "output_layer", "qa_outputs", "score", "unembed", "unembedding"),
    ]
)
TABLES: Final = (nn.Embedding, nn.EmbeddingBag)
CONVOLUTIONS: Final = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED: Final = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
RECURRENT: Final = (nn.RNNBase, nn.RNNCellBase)
LAYERS: Final = (*TABLES, *CONVOLUTIONS, *TRANSPOSED, *RECURRENT, nn.MultiheadAttention, nn.Bilinear)


def is_linear(module: nn.Module) -> bool:
    """Return whether a module is a linear map, `nn.Linear` or one that looks like it: quantized, sharded, one's own."""
    weight = _held_weight(module)
    shape = (getattr(module, "out_features", None), getattr(module, "in_features", None))
    return isinstance(module, nn.Linear) or (weight is not None and tuple(weight.shape) == shape)


def _held_weight(module: nn.Module) -> nn.Parameter | None:
    """Return the weight that a module holds; to ask a parametrized one would compute it, and may change the model."""
    return module._parameters.get("weight")


def output_heads(model: nn.Module) -> dict[int, str]:
    """Return the heads of a model as the ids of their modules, each with how it was found."""
    everything = {name: module for name, module in model.named_modules() if is_linear(module)}
    inside = _inside_blocks(model)
    outside = {
        name: module for name, module in everything.items() if id(module) not in inside and not _is_part(model, name)
    }
    named = {id(module): "output head by its name" for module in _named(outside)}
    tables = [module for module in model.modules() if isinstance(module, TABLES)]
    if any(_are_tied(layer, table) for layer in everything.values() for table in tables):
        return named
    candidates = list(outside.values()) or ([] if tables or named else list(everything.values()))
    has_others = len(everything) > 1 or any(isinstance(module, LAYERS) for module in model.modules())
    if not candidates or not has_others:
        return named
    taken = {module.in_features for module in everything.values()} if named else set()
    last = {id(module): "output head, the last linear layer" for module in _last(candidates, taken)}
    return {**last, **named}


def _are_tied(layer: nn.Module, table: nn.Module) -> bool:
    one, other = _held_weight(layer), _held_weight(table)
    if one is None or other is None:
        return False
    return bool(one.untyped_storage()._cdata == other.untyped_storage()._cdata)  # tells meta tensors apart as well


def _named(layers: dict[str, nn.Module]) -> list[nn.Module]:
    """Return the layers named as heads; of a head that is a module with several, the last one."""
    by_head: dict[str, list[nn.Module]] = {}
    for name, module in layers.items():
        parts = name.split(".")
        places = [place for place, part in enumerate(parts) if part in HEAD_NAMES]
        if places:
            # A container of several heads has one for each of its elements.
            end = places[0] + (2 if parts[places[0]] == "heads" else 1)
            by_head.setdefault(".".join(parts[:end]), []).append(module)
    return [modules[-1] for modules in by_head.values()]


def _last(layers: list[nn.Module], taken: set[Any]) -> Iterator[nn.Module]:
    """Yield the last layer and those right before it that stand beside it, if nothing takes what they give."""
    last = layers[-1]
    if last.out_features in taken:
        return
    yield last
    taken = {*taken, last.in_features}
    for layer in reversed(layers[:-1]):
        if layer.in_features != last.in_features or layer.out_features in taken:
            return
        yield layer


def _inside_blocks(model: nn.Module) -> set[int]:
    """Return the ids of the modules inside what is repeated."""
    found: set[int] = set()
    for name, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.ModuleDict | nn.Sequential):
            continue
        if name.rpartition(".")[2] in HEAD_NAMES:
            continue
        children = [child for child in module.children() if any(True for _ in child.children())]
        for child in children:
            num_alike = sum(type(other) is type(child) for other in children)
            if isinstance(module, nn.ModuleList) or num_alike > 1:
                found |= {id(each) for each in child.modules()}
    return found


def _is_part(model: nn.Module, name: str) -> bool:
    """Return whether a layer is a piece of an attention, whose result it gives."""
    owner = model.get_submodule(name.rpartition(".")[0])
    return isinstance(owner, nn.MultiheadAttention)
