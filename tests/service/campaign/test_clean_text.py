"""Text from outside is cleaned and cut once, and stays as it is then."""

from __future__ import annotations

import os

from hypothesis import given
from hypothesis import strategies as st

from spectune.service.campaign.model.clean_text import LONGEST_TEXT, clean_text

ANYTHING = st.text(st.characters(exclude_categories=()) | st.sampled_from("\x00\x1b\r\n\t\ud800\udce9\u202e\u2028"))


def test_what_no_store_or_terminal_could_hold_is_written_out() -> None:
    assert clean_text("cannot read " + os.fsdecode(b"caf\xe9.bin")) == r"cannot read caf\udce9.bin"
    assert clean_text("a\x00b\x1b[31mc\rd\x9b") == r"a\x00b\x1b[31mc\rd\x9b"
    assert clean_text("\u202eevil\u2028") == r"\u202eevil\u2028"
    assert clean_text("Zeilen\r\n\tund Äpfel 🍏") == "Zeilen\n\tund Äpfel 🍏"


@given(ANYTHING)
def test_clean_text_is_utf8_and_stays_as_it_is(text: str) -> None:
    cleaned = clean_text(text)
    cleaned.encode()
    assert "\x00" not in cleaned
    assert clean_text(cleaned) == cleaned


def test_a_text_of_megabytes_keeps_head_and_tail_and_says_how_long_it_was() -> None:
    for filling in ("x", "é", "\x1b", "\udce9", "🍏"):
        text = "head" + filling * 5_000_000 + "tail"
        cleaned = clean_text(text)
        assert len(cleaned.encode()) < LONGEST_TEXT + 200
        assert cleaned.startswith("head")
        assert cleaned.endswith("tail")
        assert "[... cut: the text had 5000008 characters ...]" in cleaned
        assert clean_text(cleaned) == cleaned
