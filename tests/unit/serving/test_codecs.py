"""Default decoders and encoders."""

import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring.serving import codecs
from mooring.serving.problems import UndecodableBody, UnsupportedType


@pytest.fixture
def without_numpy(monkeypatch):
    monkeypatch.setattr(codecs, "numpy", lambda: None)


def npy(array) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"[[1, 2.5], [3, 4]]", "application/json"),
        (b"1,2.5\n3,4\n", "text/csv"),
        (b"1,2.5\r\n3,4", "text/csv; charset=utf-8"),
    ],
)
def test_scikit_learn_gets_rows_of_float32(body, kind):
    data = codecs.decode(body, kind, "sklearn")
    assert data.dtype == np.float32
    assert data.tolist() == [[1.0, 2.5], [3.0, 4.0]]


def test_one_row_of_csv_stays_a_row():
    assert codecs.decode(b"1,2,3", "text/csv", "sklearn").shape == (1, 3)


def test_npy_is_read_as_it_is():
    array = np.array([[1, 2]], dtype=np.int64)
    data = codecs.decode(npy(array), "application/x-npy", "sklearn")
    assert data.dtype == np.int64
    assert data.tolist() == [[1, 2]]


def test_pickles_within_npy_are_not_loaded():
    with pytest.raises(UndecodableBody):
        codecs.decode(npy(np.array([object], dtype=object)), "application/x-npy", "sklearn")


def test_npz_is_a_sparse_matrix():
    sparse = pytest.importorskip("scipy.sparse")
    buffer = io.BytesIO()
    sparse.save_npz(buffer, sparse.csr_matrix([[0, 5]]))
    assert codecs.decode(buffer.getvalue(), "application/x-npz", "sklearn").toarray().tolist() == [[0, 5]]


@pytest.mark.parametrize("family", ["sklearn", "python"])
@pytest.mark.parametrize("kind", ["image/png", "", "application/jsonlines"])
def test_other_types_are_415(kind, family):
    with pytest.raises(UnsupportedType) as error:
        codecs.decode(b"", kind, family)
    assert error.value.status == 415


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"{", "application/json"),
        (b"\xff", "application/json"),
        (b'["a"]', "application/json"),
        (b"a,b", "text/csv"),
        (b"1,2\n3", "text/csv"),
        (b"", "text/csv"),
        (b"not numpy", "application/x-npy"),
        (b"not a zip", "application/x-npz"),
    ],
)
def test_bodies_that_are_not_what_they_say_are_told_apart(body, kind):
    with pytest.raises(UndecodableBody):
        codecs.decode(body, kind, "sklearn")


def test_without_numpy_json_and_csv_are_lists(without_numpy):
    assert codecs.decode(b'{"a": [1]}', "application/json", "python") == {"a": [1]}
    assert codecs.decode(b"1,x\n2.5,y\n", "text/csv", "python") == [[1.0, "x"], [2.5, "y"]]
    assert codecs.decode(b"hi", "text/plain", "python") == "hi"
    with pytest.raises(UnsupportedType):
        codecs.decode(b"", "application/x-npy", "python")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.array([1, 2]), b"1\n2\n"),
        (np.array([[1.5, 2.0], [3.0, 4.0]]), b"1.5,2.0\n3.0,4.0\n"),
        ([["a,b", 'c"d']], b'"a,b","c""d"\n'),
        (np.float64(1.5), b"1.5\n"),
        (7, b"7\n"),
    ],
)
def test_csv_has_a_line_per_row(value, text):
    assert codecs.encode(value, "text/csv") == text


def test_json_takes_arrays_wherever_they_are():
    assert json.loads(codecs.encode({"a": np.array([[1]]), "b": np.float32(0.5), "c": {2, 1}}, "application/json")) == {
        "a": [[1]],
        "b": 0.5,
        "c": [1, 2],
    }


@given(st.lists(st.lists(st.floats(allow_nan=False, width=32), min_size=2, max_size=2), min_size=1, max_size=5))
def test_what_is_encoded_decodes_to_the_same(rows):
    array = np.array(rows, dtype=np.float32)
    for kind in ("application/json", "text/csv", "application/x-npy"):
        assert np.array_equal(codecs.decode(codecs.encode(array, kind), kind, "sklearn"), array)


def test_unknown_accept_is_406():
    with pytest.raises(UnsupportedType) as error:
        codecs.encode([1], "image/png")
    assert error.value.status == 406


@pytest.mark.parametrize(
    ("accept", "default", "picked"),
    [
        ("text/csv", "application/json", "text/csv"),
        ("Application/JSON; q=1", "text/csv", "application/json"),
        ("image/png, text/csv;q=0.5, application/json", "application/json", "text/csv"),
        ("image/png, */*", "text/csv", "text/csv"),
        ("text/*", "application/json", "text/csv"),
        ("image/png", "application/json", None),
        ("", "application/json", None),
    ],
)
def test_the_first_supported_type_of_accept_wins(accept, default, picked):
    assert codecs.pick_accept(accept, default) == picked
