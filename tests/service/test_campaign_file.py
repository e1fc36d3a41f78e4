"""A campaign file is read by JSON's rules or by those of YAML 1.2, and what is not taken is named with its line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from spectune.service.campaign_file import parse_document, read_document, write_yaml
from spectune.service.errors import SpecificationError


def refusal(text: str) -> str:
    with pytest.raises(SpecificationError) as caught:
        parse_document(text)
    return str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        '{\n\t"name": "a",\n\t"task": {"steps": 60}\n}',
        '{"name": "a", "task":\t{"steps": 60}}',
        '\ufeff{"name": "a", "task": {"steps": 60}}',
        '\n\n  {"name": "a", "task": {"steps": 6e1}}',
        '{"name": "\\u0061", "task": {"steps": 60}}',
    ],
)
def test_json_is_read_with_tabs_and_a_byte_order_mark(text: str) -> None:
    assert parse_document(text) == {"name": "a", "task": {"steps": 60}}


def test_escaped_emoji_are_read_from_json_and_from_yaml() -> None:
    document = {"name": "a", "tags": {"mood": "\U0001f600 \u00fc"}}
    assert parse_document(json.dumps(document)) == document
    assert parse_document('name: a\ntags: {mood: "\\ud83d\\ude00 \\u00fc"}\n') == document


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"a": 1,\n "a": 2}', "is not JSON (the key 'a' stands twice, line 2)"),
        ('{"x": {"a": [{"b": 1}]},\n "y": {"b": 1,\n "b": 2}}', "the key 'b' stands twice, line 3"),
        ('{"a": 1, "\\u0061": 2}', "the key 'a' stands twice, line 1"),
        ('{"a": "NaN",\n "b": NaN}', "JSON has no NaN, line 2"),
        ('{"a": [1,\n -Infinity]}', "JSON has no -Infinity, line 2"),
        ('{"a": 1,\n "b": "\\ud83d"}', "half a character (a lone surrogate), line 2"),
        ('{"a": 1,\n "\\ude00": 2}', "half a character (a lone surrogate), line 2"),
        ('{"a": 1,\n}', "line 2, column 1"),
        ("{name: a}", "line 1, column 2; a text that begins with '{' is JSON"),
        ('{"a": ' + "9" * 5000 + "}", "too many digits"),
        ('{"a": ' * 30000, "nested too deeply"),
        ('{"a": "tab\there"}', "line 1, column 11"),
        ('a: 1\nb: "\\ud83d"\n', "is not YAML (half a character (a lone surrogate), line 2)"),
    ],
)
def test_json_that_is_not_taken_is_named_with_its_line(text: str, words: str) -> None:
    assert words in refusal(text)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("010", 10),
        ("-007", -7),
        ("0o17", 15),
        ("0x1F", 31),
        ("1:30", "1:30"),
        ("-1:30:00.5", "-1:30:00.5"),
        ("1_000", "1_000"),
        ("0b11", "0b11"),
        ("1e-3", 0.001),
        ("3E+2", 300.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("e3", "e3"),
        ("yes", "yes"),
        ("off", "off"),
        ("n", "n"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("2026-12-01", "2026-12-01"),
        ("2024-13-45", "2024-13-45"),
        ("=", "="),
        (".inf", float("inf")),
        ("!!int 010", 10),
        ("!!float 1", 1.0),
        ("!!str 010", "010"),
    ],
)
def test_scalars_mean_what_yaml_1_2_says(scalar: str, value: Any) -> None:
    found = parse_document(f"a: {scalar}\n")["a"]
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: !!int 1_000\n", "a value is not what it says it is, line 2"),
        ("a: 1\nb: !!int 1:30\n", "a value is not what it says it is, line 2"),
        ("a: !!bool yes\n", "a value is not what it says it is, line 1"),
        ("a: !!timestamp 2026-12-01\n", "a value of this kind is not taken, line 1"),
        ("a: !!binary aGk=\n", "a value of this kind is not taken, line 1"),
        ("a: !!set {b}\n", "a value of this kind is not taken, line 1"),
    ],
)
def test_tags_cannot_bring_back_older_rules(text: str, words: str) -> None:
    assert words in refusal(text)


def test_a_merge_key_is_a_key_like_any_other() -> None:
    assert parse_document("a: {<<: {b: 1}, c: 2}\n") == {"a": {"<<": {"b": 1}, "c": 2}}


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
    | st.from_regex(r"[-+]?[0-9:_.oxe]{1,6}", fullmatch=True),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(min_size=1, max_size=5), PLAIN, min_size=1, max_size=4))
def test_what_is_written_is_read_as_the_same_by_both_versions_of_yaml(document: dict[str, Any]) -> None:
    text = write_yaml(document)
    assert parse_document(text) == document
    assert yaml.safe_load(text) == document


@given(st.dictionaries(st.text(min_size=1, max_size=5), PLAIN, max_size=4))
def test_json_of_any_document_is_read_as_it_was(document: dict[str, Any]) -> None:
    assert parse_document(json.dumps(document)) == document


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text('{"name": "a"}', encoding="utf-16")
    with pytest.raises(SpecificationError, match="it is not UTF-8"):
        read_document(tmp_path / "c.json")
