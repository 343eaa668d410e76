import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"


@pytest.fixture(scope="module")
def ledger() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ledger", SCRIPTS / "ledger.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_markers_are_found_in_functions_classes_and_coroutines(ledger: ModuleType, tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    (tests / "deep").mkdir(parents=True)
    (tests / "deep" / "test_x.py").write_text(
        "import pytest\n"
        "@pytest.mark.shows('A.B', 'A->C')\n"
        "@pytest.mark.soak\n"
        "async def test_one(): ...\n"
        "class TestY:\n"
        "    @pytest.mark.shows('D.E')\n"
        "    def test_two(self): ...\n"
    )
    assert ledger.markers(tests) == {
        "A.B": "tests/deep/test_x.py::test_one",
        "A->C": "tests/deep/test_x.py::test_one",
        "D.E": "tests/deep/test_x.py::TestY::test_two",
    }


def test_every_row_has_a_state_and_what_works_has_a_test(ledger: ModuleType) -> None:
    rows = ledger.rows()
    assert len({(row.name, row.direction) for row in rows}) == len(rows)
    for row in rows:
        assert (row.status == "works") == (row.test is not None)
    by_name = {row.name: row for row in rows}
    assert by_name["CreateModel.ModelName"].status == "works"
    assert by_name["CreateModel.VpcConfig"].status in ("planned", "refused")
    assert by_name["CreateTransformJob.TransformJobName"].status == "planned"


def test_the_part_that_is_shown_shows_the_whole_and_not_its_namesakes(ledger: ModuleType) -> None:
    shown = {"Op.List[].Name": "t1", "Op.Map.Key": "t2"}
    assert ledger._test_of("Op.List", shown) == "t1"
    assert ledger._test_of("Op.Map", shown) == "t2"
    assert ledger._test_of("Op.Lis", shown) is None
    assert ledger._test_of("Op.List[].Other", shown) is None
