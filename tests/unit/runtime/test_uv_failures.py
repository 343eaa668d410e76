"""What uv's last words mean for whoever waits."""

import pytest

from mooring.runtime import uv

NO_VERSION = [
    "error: No solution found when resolving dependencies",
    "  cause: Because there is no version of scikit-learn==9.4.2 and you require scikit-learn==9.4.2, we can conclude …",
]
NO_NETWORK = [
    "error: Request failed after 3 retries in 4.6s",
    "  cause: Failed to fetch: https://localhost:1/scikit-learn/",
    "  cause: tcp connect error",
    "  cause: Connection refused (os error 111)",
]


@pytest.mark.parametrize(
    ("code", "lines", "retryable"),
    [
        (1, NO_VERSION, False),
        (2, NO_NETWORK, True),
        (
            2,
            ["error: Failed to fetch", "  cause: HTTP status server error (503 Service Unavailable) for url (x)"],
            True,
        ),
        (2, ["error: failed to write: No space left on device (os error 28)"], True),
        (2, ["error: Failed to build `x==1`", "  SyntaxError: invalid syntax"], False),
        (2, ["error: Git operation failed", "  fatal: unable to access 'https://x/': Could not resolve host: x"], True),
        (-9, [], True),
    ],
)
def test_only_what_may_pass_is_retryable(code, lines, retryable):
    error = uv.failure("image: cannot", code, lines)
    assert error.retryable is retryable
    assert error.reason.startswith("image: cannot:")


def test_the_reason_begins_where_uv_says_error():
    error = uv.failure("image: cannot", 1, ["Downloading numpy", "Resolved 3 packages", *NO_VERSION])
    assert "Downloading" not in error.reason
    assert "scikit-learn==9.4.2" in error.reason
