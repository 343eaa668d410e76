from mooring.api.effects import drop


def test_a_member_is_dropped_at_any_depth_and_in_every_element() -> None:
    params = {"A": 1, "B": {"C": 2, "D": 3}, "L": [{"X": 1, "Y": 2}, {"X": 3}], "S": ["a"]}
    assert drop(params, "A") == {"B": params["B"], "L": params["L"], "S": ["a"]}
    assert drop(params, "B.C") == {**params, "B": {"D": 3}}
    assert drop(params, "L[].X") == {**params, "L": [{"Y": 2}, {}]}
    assert drop(params, "L[]") == {"A": 1, "B": params["B"], "S": ["a"]}
    assert params["L"] == [{"X": 1, "Y": 2}, {"X": 3}]


def test_what_is_not_there_changes_nothing() -> None:
    params = {"A": 1, "S": ["a"]}
    assert drop(params, "B.C") == params
    assert drop(params, "A.C") == params
    assert drop(params, "S[].C") == params
