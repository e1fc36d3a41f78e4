"""Token shards: read as llm.c writes them, refused by file where they are damaged, built from documents."""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from spectune.trainers import TaskOptionError, task_from_options
from spectune.trainers.data.corpora import Tokens, list_corpus, read_corpus
from spectune.trainers.data.corpus_build import build_corpus
from spectune.trainers.data.documents import tokenizer_from
from spectune.trainers.data.text import CorpusError
from spectune.trainers.seeds import generator_for


def shard(path: Path, tokens: Any, *, magic: int = 20240520, version: int = 1, extra: bytes = b"") -> Path:
    """Write a shard by the book: 256 int32, then uint16."""
    values = np.asarray(tokens, dtype=np.uint16)
    head = struct.pack("<256i", magic, version, len(values), *[0] * 253)
    path.write_bytes(head + values.astype("<u2").tobytes() + extra)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "shards"
    made.mkdir()
    draw = np.random.default_rng(0)
    shard(made / "x_train_000001.bin", draw.integers(0, 50_000, 300))
    shard(made / "x_train_000002.bin", draw.integers(0, 50_000, 200))
    shard(made / "x_val_000000.bin", draw.integers(0, 50_000, 100))
    return made


def options(folder: Path, **more: Any) -> dict[str, Any]:
    small = {"width": 16, "depth": 1, "heads": 2, "context": 16, "batch_size": 4, "validation_batches": 2}
    return small | {"vocabulary": 50_304, "corpus": str(folder)} | more


def test_windows_never_cross_shards_and_reach_every_place() -> None:
    tokens = Tokens([torch.arange(5, dtype=torch.uint8), torch.arange(10, 13, dtype=torch.uint8)])
    assert tokens.num_windows(3) == 3 + 1
    windows = tokens.windows(torch.arange(4), 3)
    assert windows.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [10, 11, 12]]


def test_tokens_above_32767_come_back_as_they_were(tmp_path: Path) -> None:
    shard(tmp_path / "a.bin", [0, 32_767, 32_768, 65_535])
    shard(tmp_path / "val.bin", [1, 2])
    assert read_corpus(tmp_path).train.windows(torch.tensor([0]), 4).tolist() == [[0, 32_767, 32_768, 65_535]]


def test_a_model_trains_on_shards(folder: Path) -> None:
    task = task_from_options("language_model", options(folder))
    task.check()
    model = task.build(generator_for("model", 0))
    inputs, targets = task.batch(0, 1)
    assert torch.equal(inputs[:, 1:], targets[:, :-1])
    assert int(inputs.max()) > 256
    assert task.evaluate(model, 0)["validation_loss"] == pytest.approx(np.log(50_304), abs=0.3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: shard(f / "x_train_000001.bin", [1] * 300, magic=7), "starts with 20240520, this file with 7"),
        (lambda f: shard(f / "x_train_000001.bin", [1] * 300, version=7), "a shard of version 7"),
        (lambda f: shard(f / "x_train_000001.bin", [1] * 300, extra=b"\1"), "300 tokens of 2 bytes, 601 bytes follow"),
        (lambda f: (f / "x_train_000001.bin").write_bytes(b""), "this file with nothing"),
        (lambda f: (f / "x_train_000001.bin").write_bytes(b"\x10\xd7\x34\x01"), "no token shard"),
        (lambda f: (f / "x_val_000000.bin").unlink(), "there is no validation shard"),
        (lambda f: (f / "manifest.json").write_text("[]"), "not a manifest"),
        (lambda f: (f / "manifest.json").write_text('{"shards": [], "vocabulary": 9}'), "not the shard that manifest"),
    ],
)
def test_a_damaged_shard_is_refused_by_file(folder: Path, damage: Any, message: str) -> None:
    damage(folder)
    with pytest.raises(TaskOptionError, match=message) as caught:
        task_from_options("language_model", options(folder)).check()
    assert caught.value.option == "corpus"


def test_shards_without_a_manifest_need_a_vocabulary_that_holds_their_tokens(folder: Path) -> None:
    with pytest.raises(TaskOptionError, match="vocabulary: needed: the shards' folder has no manifest"):
        task_from_options("language_model", options(folder, vocabulary=None)).check()
    with pytest.raises(TaskOptionError, match=r"vocabulary: the corpus has a token \d+: got 1000"):
        task_from_options("language_model", options(folder, vocabulary=1000)).check()


@pytest.mark.parametrize("kind", ["folder", "jsonl", "parquet"])
def test_a_built_corpus_holds_the_documents_and_nothing_else(kind: str, tmp_path: Path) -> None:
    texts = [f"document {number} says naïve things {'again ' * (number % 7)}" for number in range(120)]
    source = tmp_path / f"docs.{kind}"
    if kind == "folder":
        source.mkdir()
        for number, text in enumerate(texts):
            (source / f"{number:03d}.txt").write_text(text)
    elif kind == "jsonl":
        source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"text": texts}), source)
    seen: list[int] = []
    built = build_corpus(source, tokenizer_from("bytes"), tmp_path / "out", shard_tokens=1500, on_progress=seen.append)
    assert built.documents == 120
    assert seen
    decoded = ""
    for path in sorted((tmp_path / "out").glob("*.bin")):
        values = np.frombuffer(path.read_bytes()[1024:], dtype="<u2")
        decoded += "".join("\n" if value == 256 else chr(value) for value in values)
    got = {each.encode("latin-1").decode() for each in decoded.split("\n")} - {""}
    assert sorted(got) == sorted(texts)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    for entry in manifest["shards"]:
        content = (tmp_path / "out" / entry["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == entry["sha256"]
        assert entry["tokens"] <= 1500
    assert list_corpus(tmp_path / "out").vocabulary == 257
    task_from_options("language_model", options(tmp_path / "out", vocabulary=None)).check()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_tokenizer_file_makes_its_own_tokens(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    model = tokenizers.models.WordLevel({"<|endoftext|>": 0, "a": 1, "b": 2, "[UNK]": 3}, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    made = tokenizer_from(str(tmp_path / "tokenizer.json"))
    assert (made.vocabulary, made.separator) == (4, 0)
    assert [each.tolist() for each in made.encode(["a b a", "c"])] == [[1, 2, 1], [3]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"text": "a"}\nnot json\n', "line 2 is no JSON"),
        ('{"text": "a"}\n{"body": "b"}\n', "line 2 has no text under 'text'"),
        ('{"text": 5}\n', "line 1 has no text under 'text'"),
        ("", "stays empty"),
        ('{"text": "a"}\n', "stays empty"),
    ],
)
def test_a_bad_source_is_refused_and_leaves_nothing(content: str, message: str, tmp_path: Path) -> None:
    source = tmp_path / "docs.jsonl"
    source.write_text(content)
    with pytest.raises(CorpusError, match=message):
        build_corpus(source, tokenizer_from("bytes"), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["docs.jsonl"]


def test_an_existing_folder_and_a_bad_tokenizer_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="exists already"):
        build_corpus(tmp_path, tokenizer_from("bytes"), tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(CorpusError, match=r"not a tokenizer\.json"):
        tokenizer_from(str(tmp_path / "tokenizer.json"))
    with pytest.raises(CorpusError, match="cannot be read"):
        tokenizer_from(str(tmp_path / "nowhere.json"))
