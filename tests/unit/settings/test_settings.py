"""Settings: order of the sources, every option in every source, messages."""

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mooring import settings
from mooring.settings import SettingError, Settings

# option → (text as a flag or variable gives it, what it means)
SAMPLES: dict[str, tuple[str, object]] = {
    "host": ("0.0.0.0", "0.0.0.0"),
    "port": ("8080", 8080),
    "data_dir": ("/srv/mooring", Path("/srv/mooring")),
    "region": ("eu-west-3", "eu-west-3"),
    "account_id": ("123456789012", "123456789012"),
    "insecure": ("true", True),
    "edge_workers": ("3", 3),
    "keep_instances": ("yes", True),
    "log_level": ("DEBUG", "debug"),
    "invocation_timeout_s": ("1.5", 1.5),
    "invocation_max_bytes": ("6MiB", 6 << 20),
    "runtime_egress": ("none", "none"),
    "capacity_oversize": ("refuse", "refuse"),
    "capacity_memory": ("reserve", "reserve"),
    "capacity_memory_floor_bytes": ("1g", 1 << 30),
    "logs_max_bytes": ("2097152", 2 << 20),
    "instance_types_file": ("types.csv", Path("types.csv")),
    "index_url": ("https://pypi.example/simple", "https://pypi.example/simple"),
}


def load(flags: dict[str, object] | None = None, environment: dict[str, str] | None = None, file: Path | None = None):
    return settings.load(flags=flags or {}, environment=environment or {}, config_file=file)


def test_every_option_has_a_sample_and_a_parser() -> None:
    names = {option.name for option in fields(Settings)}
    assert names == set(SAMPLES) == set(settings._PARSERS)


def test_defaults_stand_where_nothing_is_given() -> None:
    assert load() == Settings()


@pytest.mark.parametrize("name", sorted(SAMPLES))
def test_an_option_is_read_from_flag_environment_and_file(name: str, tmp_path: Path) -> None:
    text, meant = SAMPLES[name]
    file = tmp_path / "mooring.toml"
    file.write_text(f'{name} = "{text}"\n')
    assert getattr(load({name: text}), name) == meant
    assert getattr(load(environment={f"MOORING_{name.upper()}": text}), name) == meant
    assert getattr(load(file=file), name) == meant


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file = tmp_path / "mooring.toml"
    file.write_text("port = 1\nedge_workers = 1\nregion = 'eu-west-1'\n")
    environment = {"MOORING_PORT": "2", "MOORING_EDGE_WORKERS": "2"}
    merged = load({"port": 3}, environment, file)
    assert (merged.port, merged.edge_workers, merged.region, merged.host) == (3, 2, "eu-west-1", "127.0.0.1")


def test_a_flag_that_says_false_beats_an_environment_that_says_true() -> None:
    assert load({"insecure": False}, {"MOORING_INSECURE": "1"}).insecure is False


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load(environment={"MOORING_PORT": ""}).port == 4747


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text("port = 5\n")
    assert load(environment={"MOORING_CONFIG": str(file)}).port == 5


def test_a_dotted_option_is_the_same_as_its_flat_name(tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text('[capacity]\noversize = "refuse"\nmemory-floor-bytes = 7\n[logs]\nmax_bytes = "1MiB"\n')
    merged = load(file=file)
    assert (merged.capacity_oversize, merged.capacity_memory_floor_bytes, merged.logs_max_bytes) == (
        "refuse",
        7,
        1 << 20,
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("prot = 1", "unknown option: prot"),
        ("port = ", "not valid TOML"),
        ('capacity_oversize = "refuse"\n[capacity]\noversize = "shrink"', "gives capacity_oversize twice"),
        ("port = true", "port in .* must be a whole number from 0 to 65535, not True"),
        ("account_id = 12", "12 digits"),
    ],
)
def test_a_bad_file_is_refused_in_words(text: str, words: str, tmp_path: Path) -> None:
    file = tmp_path / "m.toml"
    file.write_text(text)
    with pytest.raises(SettingError, match=words):
        load(file=file)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="cannot read the settings file"):
        load(file=tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("port", "65536"),
        ("port", "-1"),
        ("port", "٣"),
        ("host", "a b"),
        ("region", "US-EAST-1"),
        ("account_id", "1234"),
        ("insecure", "maybe"),
        ("edge_workers", "0"),
        ("log_level", "loud"),
        ("invocation_timeout_s", "nan"),
        ("invocation_timeout_s", "soon"),
        ("invocation_max_bytes", "6 parsecs"),
        ("capacity_oversize", "grow"),
        ("index_url", "ftp://x"),
        ("index_url", "127.0.0.1:9000"),
        ("data_dir", "a\0b"),
    ],
)
def test_a_bad_value_is_refused_and_its_source_named(name: str, value: str) -> None:
    with pytest.raises(SettingError, match=f"^MOORING_{name.upper()} must be "):
        load(environment={f"MOORING_{name.upper()}": value})


def test_a_bad_index_url_is_not_shown_for_it_may_hold_a_password() -> None:
    with pytest.raises(SettingError) as caught:
        load({"index_url": "user:secret@host"})
    assert "secret" not in str(caught.value)


def test_misspelt_variables_are_found() -> None:
    environment = {"MOORING_PROT": "1", "MOORING_PORT": "1", "MOORING_CONFIG": "x", "PATH": "y"}
    assert settings.unknown_environment(environment) == ["MOORING_PROT"]


@given(st.sampled_from(sorted(SAMPLES)), st.one_of(st.text(), st.integers(), st.floats(), st.booleans(), st.binary()))
def test_any_value_is_taken_or_refused_but_never_breaks(name: str, value: object) -> None:
    try:
        load({name: value})
    except SettingError as error:
        assert "\n" not in str(error)
