"""A folder of files as bytes: split, cached, mapped."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from spectune.trainers.data.text import CorpusError, list_text, read_text


def content_of(corpus: Path, names: tuple[str, ...]) -> bytes:
    return b"".join((corpus / name).read_bytes() for name in names)


def test_a_file_never_stands_in_both_splits_and_none_is_lost(corpus: Path) -> None:
    listing = list_text(corpus)
    assert not set(listing.train) & set(listing.validation)
    assert sorted(listing.train + listing.validation) == sorted(
        path.relative_to(corpus).as_posix() for path in corpus.rglob("*.txt")
    )
    assert listing.validation


def test_the_tensors_hold_the_files_of_their_split_in_order(corpus: Path) -> None:
    listing, text = list_text(corpus), read_text(corpus)
    assert bytes(text.train.tolist()) == content_of(corpus, listing.train)
    assert bytes(text.validation.tolist()) == content_of(corpus, listing.validation)
    assert listing.num_bytes() == (len(text.train), len(text.validation))


def test_a_new_file_moves_no_other(corpus: Path) -> None:
    before = list_text(corpus)
    (corpus / "another.txt").write_text("more")
    after = list_text(corpus)
    assert set(before.train) <= set(after.train)
    assert set(before.validation) <= set(after.validation)


def test_two_files_make_two_splits(tmp_path: Path) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("a", "b"):
        (folder / name).write_text(name)
    listing = list_text(folder)
    assert len(listing.train) == len(listing.validation) == 1


def test_empty_binary_hidden_and_linked_files_are_left_out(corpus: Path) -> None:
    before = list_text(corpus)
    (corpus / "empty.txt").touch()
    (corpus / "binary.bin").write_bytes(b"text\0not")
    (corpus / ".hidden").write_text("hidden")
    (corpus / ".git").mkdir()
    (corpus / ".git" / "config").write_text("hidden")
    (corpus / "link.txt").symlink_to(corpus / "0.txt")
    os.mkfifo(corpus / "pipe.txt")
    assert list_text(corpus) == before


def test_the_cache_file_is_built_once_and_named_by_content(corpus: Path, cache_folder: Path, tmp_path: Path) -> None:
    text = read_text(corpus)
    (path,) = cache_folder.iterdir()
    assert path.name == f"text-{text.fingerprint}.bin"
    built_at = path.stat().st_mtime_ns
    same = corpus.rename(tmp_path / "elsewhere")
    assert read_text(same).fingerprint == text.fingerprint
    assert [p.stat().st_mtime_ns for p in cache_folder.iterdir()] == [built_at]


def test_a_changed_byte_gives_another_cache_file(corpus: Path, tmp_path: Path) -> None:
    fingerprint = read_text(corpus).fingerprint
    changed = corpus.rename(tmp_path / "changed")
    path = changed / "0.txt"
    path.write_text("T" + path.read_text()[1:])
    assert read_text(changed).fingerprint != fingerprint


def test_a_truncated_cache_file_is_refused_by_name(corpus: Path, cache_folder: Path, tmp_path: Path) -> None:
    read_text(corpus)
    (path,) = cache_folder.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    same = corpus.rename(tmp_path / "elsewhere")
    with pytest.raises(CorpusError, match=f"damaged, delete it: got '{path}'"):
        read_text(same)


def test_builders_at_the_same_time_leave_one_whole_file(corpus: Path, cache_folder: Path) -> None:
    threads = [threading.Thread(target=read_text, args=(corpus,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in cache_folder.iterdir()] == [f"text-{read_text(corpus).fingerprint}.bin"]


def test_a_missing_folder_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no such folder: got '.*nowhere'"):
        list_text(tmp_path / "nowhere")


def test_a_folder_without_text_is_refused_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=f"needs two files of text.* has 0: got '{tmp_path}'"):
        list_text(tmp_path)


def test_the_standard_library_is_always_there_without_tests_and_packages() -> None:
    listing = list_text(None)
    names = listing.train + listing.validation
    assert len(names) > 300
    assert "argparse.py" in names
    assert not [name for name in names if {"test", "tests", "site-packages"} & set(name.split("/"))]
    train, validation = listing.num_bytes()
    assert train > 5_000_000
    assert 0.03 < validation / train < 0.3


def test_a_build_that_fails_leaves_nothing_behind(
    corpus: Path, cache_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full_disk)
        with pytest.raises(CorpusError, match="No space left"):
            read_text(corpus)
    assert list(cache_folder.iterdir()) == []
    assert len(read_text(corpus).train)
