"""Where scripts and models are found."""

import pickle

import pytest

from mooring.serving import loading
from mooring.serving.problems import LoadFailure

pytestmark = pytest.mark.usefixtures("clean_imports")


@pytest.fixture
def said():
    return []


def put(path, text="where = __file__\n"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_the_script_is_in_code(settings_of, model_dir, said):
    put(model_dir / "code/beside.py", "VALUE = 5\n")
    path = put(model_dir / "code/inference.py", "import beside\nwhere = __file__, beside.VALUE\n")
    module = loading.import_script(settings_of(), said.append)
    assert module.where == (str(path), 5)
    assert said == []


def test_the_program_may_be_named_with_or_without_py_and_in_a_folder(settings_of, model_dir, said):
    path = put(model_dir / "code/src/serve_it.py")
    for program in ("src/serve_it.py", "src/serve_it"):
        assert loading.import_script(settings_of(SAGEMAKER_PROGRAM=program), said.append).where == str(path)


def test_a_script_in_a_folder_around_everything_is_pointed_at(settings_of, model_dir):
    assert loading.misplaced(settings_of()) == ""
    put(model_dir / "mine/code/inference.py")
    assert loading.misplaced(settings_of()) == " but mine/code/inference.py (pack what is inside mine/, not the folder)"


def test_a_script_at_the_top_of_the_model_data_is_used_and_said(settings_of, model_dir, said):
    path = put(model_dir / "inference.py")
    assert loading.import_script(settings_of(), said.append).where == str(path)
    assert "top of the model data" in said[0]


@pytest.mark.parametrize("value", ["/opt/ml/model/code", "file:///opt/ml/model/code", "/opt/ml/model/other"])
def test_a_submit_directory_inside_the_model_is_found_where_the_model_is(settings_of, model_dir, said, value):
    path = put(model_dir / value.rpartition("/")[2] / "inference.py")
    assert loading.import_script(settings_of(SAGEMAKER_SUBMIT_DIRECTORY=value), said.append).where == str(path)


def test_an_s3_archive_is_where_the_platform_unpacked_it(settings_of, model_dir, tmp_path, said):
    put(model_dir / "code/inference.py")
    path = put(tmp_path / "fetched/inference.py")
    settings = settings_of(SAGEMAKER_SUBMIT_DIRECTORY="s3://bucket/sourcedir.tar.gz")
    assert loading.import_script(settings, said.append).where == str(path)


def test_an_s3_archive_may_be_the_model_data_itself(settings_of, model_dir, said):
    path = put(model_dir / "code/inference.py")
    settings = settings_of(SAGEMAKER_SUBMIT_DIRECTORY="s3://bucket/model.tar.gz")
    assert loading.import_script(settings, said.append).where == str(path)


def test_an_s3_archive_that_nobody_fetched_is_named(settings_of, said):
    with pytest.raises(LoadFailure, match=r"s3://bucket/sourcedir\.tar\.gz has to be downloaded"):
        loading.import_script(settings_of(SAGEMAKER_SUBMIT_DIRECTORY="s3://bucket/sourcedir.tar.gz"), said.append)


def test_no_script_is_none_but_a_named_one_must_be_there(settings_of, said):
    assert loading.import_script(settings_of(), said.append) is None
    with pytest.raises(LoadFailure, match=r"SAGEMAKER_PROGRAM=mine\.py"):
        loading.import_script(settings_of(SAGEMAKER_PROGRAM="mine.py"), said.append)


@pytest.mark.parametrize("program", ["../x.py", "/etc/x.py", "a/../../x"])
def test_a_program_outside_is_refused(settings_of, said, program):
    with pytest.raises(LoadFailure, match="code directory"):
        loading.import_script(settings_of(SAGEMAKER_PROGRAM=program), said.append)


def test_what_a_script_raises_comes_through(settings_of, model_dir, said):
    put(model_dir / "code/inference.py", "import not_there_at_all\n")
    with pytest.raises(ModuleNotFoundError):
        loading.import_script(settings_of(), said.append)


def test_the_one_pickle_is_loaded(model_dir, said):
    (model_dir / "churn.pkl").write_bytes(pickle.dumps({"a": 1}))
    assert loading.load_pickle(str(model_dir), said.append) == {"a": 1}
    assert "churn.pkl" in said[0]


def test_model_joblib_wins_over_others(model_dir, said):
    (model_dir / "a.pkl").write_bytes(pickle.dumps("a"))
    (model_dir / "model.joblib").write_bytes(pickle.dumps("m"))
    assert loading.load_pickle(str(model_dir), said.append) == "m"


@pytest.mark.parametrize("names", [[], ["a.pkl", "b.pkl"], ["readme.md"]])
def test_no_or_several_pickles_are_an_error_that_lists_them(model_dir, said, names):
    for name in names:
        (model_dir / name).write_bytes(b"")
    with pytest.raises(LoadFailure) as error:
        loading.load_pickle(str(model_dir), said.append)
    assert all(name in str(error.value) for name in names)
