"""Java's regular expressions in Python: every pattern of the operations on offer compiles and means the same."""

import re

import pytest

from mooring.protocol import model, patterns
from mooring.protocol.offered import OFFERED


def reachable(shape, found):
    if shape.name not in found:
        found[shape.name] = shape
        for member in [*shape.members.values(), shape.key, shape.element]:
            if member is not None:
                reachable(member.shape, found)
    return found


def test_every_pattern_of_the_operations_on_offer_compiles():
    count = 0
    for service, names in OFFERED.items():
        for name in names:
            operation = model.load(service).operation(name)
            for shape in reachable(operation.input, {}).values():
                if shape.pattern is not None:
                    patterns.compiled(shape.pattern)
                    count += 1
    assert count > 50


def test_nearly_every_pattern_of_these_services_compiles():
    refused = set()
    for service in OFFERED:
        for shape in model.load(service)._model["shapes"].values():
            try:
                patterns.compiled(shape.get("pattern", ""))
            except patterns.UnsupportedPattern:
                refused.add(shape["pattern"])
    # A quantified `$` is a slip in AWS's own model.
    assert {pattern for pattern in refused if "${1," not in pattern} == set()


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (
            r"([\p{L}\p{Z}\p{N}_.:/=+\-@]*)",
            ["", "Größe 世 ½ Ⅷ", "a:b/c=d+e-f@g_h.i", "a\u3000b"],
            ["a*b", "a\tb", "a\u0301"],
        ),
        (r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*", ["a", "a--b"], ["", "-a", "a-", "a_b", "a\n"]),
        (r"^\d{12}$", ["0" * 12], ["0" * 11, "0" * 12 + "\n", "١" * 12]),
        (r".*", ["", "any thing"], ["a\nb", "a\rb", "a\u2028b", "a\x85b"]),
        (r"[\S\s]*", ["", "a\nb"], []),
        (r"[\w-_]*", ["a-_b"], ["a b", "é"]),
        (r"\A\S[\p{Print}]*\z", ["a b"], [" a", "a\n", "a\té"]),
        (r"\p{ASCII}*", ["", "a\x00"], ["é"]),
        (r"[\p{Alnum}\-]+", ["a-1"], ["é", ""]),
        (r"\p{L}+", ["é世"], ["1"]),
        (r"\pL+", ["é"], ["1"]),
        (r"[\uD800\uDC00-\uDBFF\uDFFF]", ["😀"], ["a"]),
        (r"[.]\.", [".."], ["a.", ".a"]),
        (r"(?!\s*$).+", ["a", " a"], ["", "  "]),
        (r"(a|ab)(?<!b)c?", ["a", "ac"], ["ab"]),
        (r"a++b", ["aab"], ["b"]),
        (r"[a|~b]+", ["a|~b"], ["c"]),
    ],
)
def test_patterns_match_whole_values_as_java_does(pattern, good, bad):
    compiled = patterns.compiled(pattern)
    for value in good:
        assert compiled.fullmatch(value), value
    for value in bad:
        assert not compiled.fullmatch(value), value


@pytest.mark.parametrize("pattern", [r"[a[b]]", r"[a-z&&[^b]]", r"\Qa\E", r"\p{Nonsense}", "(", r"\P{L}"])
def test_what_cannot_be_carried_over_is_refused(pattern):
    with pytest.raises(patterns.UnsupportedPattern):
        patterns.compiled(pattern)


def test_categories_agree_with_the_interpreters_own_idea_of_letters_and_numbers():
    letters_and_numbers = patterns.compiled(r"[\p{L}\p{N}]")
    for point in [*range(0x3000), *range(0x10000, 0x10800)]:
        text = chr(point)
        if text.isalnum():
            assert letters_and_numbers.fullmatch(text), hex(point)
    assert not letters_and_numbers.fullmatch("_")
    assert isinstance(letters_and_numbers, re.Pattern)
