"""Bodies to objects and back, by media type: the defaults of the AWS framework containers.

Called by handler where the user's script has no input_fn or output_fn. NumPy is used when the environment has it; without it
JSON and CSV become plain lists. Sources: aws/sagemaker-containers `_encoders.py`, aws/sagemaker-inference-toolkit
`decoder.py`, `encoder.py` (behaviour only).
"""

import csv
import importlib
import io
import json
from typing import Any, List, Optional

from mooring.serving.problems import UndecodableBody, UnsupportedType

JSON_TYPE = "application/json"
CSV_TYPE = "text/csv"
TEXT_TYPE = "text/plain"
NPY_TYPE = "application/x-npy"
NPZ_TYPE = "application/x-npz"
TEXT_TYPES = (JSON_TYPE, CSV_TYPE)  # user functions get these as str, everything else as bytes
_NUMPY_OUT = (JSON_TYPE, CSV_TYPE, NPY_TYPE)
_PLAIN_OUT = (JSON_TYPE, CSV_TYPE, TEXT_TYPE)


def numpy() -> Any:
    """NumPy, or None where it is not installed."""
    try:
        return importlib.import_module("numpy")
    except ImportError:
        return None


def media_type(value: str) -> str:
    """Without parameters, in lower case."""
    return value.partition(";")[0].strip().lower()


def decode(body: bytes, content_type: str, family: str) -> Any:
    """The default input_fn. scikit-learn: JSON and CSV as float32, as the AWS container casts them. Raises UnsupportedType,
    UndecodableBody.
    """
    kind = media_type(content_type)
    decoder = {JSON_TYPE: _from_json, CSV_TYPE: _from_csv, NPY_TYPE: _from_npy, NPZ_TYPE: _from_npz}.get(kind)
    if family == "python" and kind.startswith("text/") and kind != CSV_TYPE:
        return _text(body)
    if decoder is None or (kind in (NPY_TYPE, NPZ_TYPE) and numpy() is None):
        raise UnsupportedType(content_type, 415)
    try:
        data = decoder(body)
        return data.astype(numpy().float32) if family == "sklearn" and kind in TEXT_TYPES else data
    except (ValueError, TypeError, OverflowError, EOFError, OSError, KeyError, csv.Error) as error:
        raise UndecodableBody("the body is not {}: {}".format(kind, error)) from error


def encode(value: Any, accept: str) -> bytes:
    """The default output_fn for one media type. Raises UnsupportedType."""
    kind = media_type(accept)
    if kind == JSON_TYPE:
        return json.dumps(value, default=_listed).encode("utf-8")
    if kind == CSV_TYPE:
        return _to_csv(value)
    if kind == TEXT_TYPE and numpy() is None:
        return str(value).encode("utf-8")
    if kind == NPY_TYPE and numpy() is not None:
        buffer = io.BytesIO()
        numpy().save(buffer, value, allow_pickle=False)
        return buffer.getvalue()
    raise UnsupportedType(accept, 406)


def pick_accept(accept: str, default: str) -> Optional[str]:
    """The first media type of an Accept header that `encode` can make; None when there is none."""
    supported = _PLAIN_OUT if numpy() is None else _NUMPY_OUT
    for item in accept.split(","):
        kind = media_type(item)
        if kind == "*/*":
            kind = media_type(default)
        if kind in supported:
            return kind
        if kind.endswith("/*"):
            for candidate in supported:
                if candidate.startswith(kind[:-1]):
                    return candidate
    return None


def _text(body: bytes) -> str:
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UndecodableBody("the body is not UTF-8 text: {}".format(error)) from error


def _from_json(body: bytes) -> Any:
    data = json.loads(_text(body))
    module = numpy()
    return data if module is None else module.array(data)


def _from_csv(body: bytes) -> Any:
    rows = list(csv.reader(io.StringIO(_text(body), newline=""), strict=True))
    rows = [row for row in rows if row]
    if not rows:
        raise UndecodableBody("the body is not text/csv: it has no rows")
    module = numpy()
    if module is None:
        return [[_cell(text) for text in row] for row in rows]
    if any(len(row) != len(rows[0]) for row in rows):
        raise UndecodableBody("the body is not text/csv: its rows differ in length")
    array = module.array(rows)
    try:
        return array.astype(float)
    except ValueError:
        return array  # names and the like; the model may know them


def _cell(text: str) -> Any:
    try:
        return float(text)
    except ValueError:
        return text


def _from_npy(body: bytes) -> Any:
    # never pickles: these bytes come from whoever may invoke
    return numpy().load(io.BytesIO(body), allow_pickle=False)


def _from_npz(body: bytes) -> Any:
    try:
        sparse = importlib.import_module("scipy.sparse")
    except ImportError:
        raise UnsupportedType(NPZ_TYPE, 415) from None
    return sparse.load_npz(io.BytesIO(body))


def _listed(value: Any) -> Any:
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    raise TypeError("{} cannot be written as JSON".format(type(value).__name__))


def _to_csv(value: Any) -> bytes:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if not isinstance(value, (list, tuple)):
        value = [value]
    rows: List[List[Any]] = [list(row) if isinstance(row, (list, tuple)) else [row] for row in value]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue().encode("utf-8")
