"""Test-only: take a member out of a request after parsing, as if the server ignored it.

`make test-effects` runs each test that shows a member's effect with that member dropped; the test must then fail.
"""

from mooring.domain.call import Params


def drop(params: Params, path: str) -> Params:
    """`params` without the member at a dotted path, in every element of the lists on the way."""
    first, _, rest = path.removesuffix("[]").partition(".")
    first = first.removesuffix("[]")
    if first not in params:
        return params
    if not rest:
        return {name: value for name, value in params.items() if name != first}
    inner = params[first]
    changed = [_dropped(item, rest) for item in inner] if isinstance(inner, list) else _dropped(inner, rest)
    return {**params, first: changed}


def _dropped(inner: object, path: str) -> object:
    return drop(inner, path) if isinstance(inner, dict) else inner
