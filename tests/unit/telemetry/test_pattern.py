"""Filter patterns."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.telemetry import pattern
from mooring.telemetry.pattern import PatternError


@pytest.mark.parametrize(
    ("text", "message", "let_through"),
    [
        ("", "anything", True),
        ("  ", "anything", True),
        ("ERROR", "[ERROR 400] BAD", True),
        ("ERROR", "[error 400]", False),
        ("ERROR 400", "[ERROR 400] BAD", True),
        ("ERROR 401", "[ERROR 400] BAD", False),
        ('"ERROR 400"', "[ERROR 400] BAD", True),
        ('"400 ERROR"', "[ERROR 400] BAD", False),
        ("-DEBUG", "INFO x", True),
        ("-DEBUG", "DEBUG x", False),
        ("INFO -DEBUG", "INFO DEBUG", False),
        ('-"a b"', "a b", False),
        ("?ERROR ?WARN", "WARN x", True),
        ("?ERROR ?WARN", "INFO x", False),
        (r'"say \"hi\""', 'they say "hi" often', True),
    ],
)
def test_terms_select_messages(text: str, message: str, let_through: bool) -> None:
    assert pattern.parse(text).matches(message) is let_through


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{ $.a = 1 }", "JSON"),
        ("[ip, user]", "space-delimited"),
        ("%a.*b%", "Regular"),
        ('"open', "not closed"),
        ('a"b', "quotation mark"),
        ('""', "empty"),
        ("?a b", "mixes"),
        ("?a -b", "mixes"),
    ],
)
def test_other_forms_are_refused_in_words(text: str, words: str) -> None:
    with pytest.raises(PatternError, match=words):
        pattern.parse(text)


@given(st.text(), st.text())
def test_any_text_is_a_pattern_or_refused(text: str, message: str) -> None:
    with contextlib.suppress(PatternError):
        pattern.parse(text).matches(message)
