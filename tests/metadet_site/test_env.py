from pathlib import Path

import pytest

from metadet_site.env import BadSetting, database_from_url, env_bool, env_int, env_secret


@pytest.mark.parametrize(
    ("value", "expected"), [("yes", True), ("1", True), ("False", False), ("off", False), ("", True)]
)
def test_a_yes_or_no_is_read(monkeypatch, value, expected):
    monkeypatch.setenv("METADET_X", value)
    assert env_bool("METADET_X", True) is expected


@pytest.mark.parametrize(("reader", "value"), [(env_bool, "maybe"), (env_int, "ten"), (env_int, "-5")])
def test_a_bad_value_stops_the_start_in_words(monkeypatch, reader, value):
    monkeypatch.setenv("METADET_X", value)
    with pytest.raises(BadSetting, match="METADET_X"):
        reader("METADET_X", 1) if reader is env_bool else reader("METADET_X", 1, minimum=0)


def test_a_secret_may_lie_in_a_file(monkeypatch, tmp_path: Path):
    (tmp_path / "key").write_text("hidden\n")
    monkeypatch.setenv("METADET_X_FILE", str(tmp_path / "key"))
    assert env_secret("METADET_X") == "hidden"
    monkeypatch.setenv("METADET_X_FILE", str(tmp_path / "none"))
    with pytest.raises(BadSetting, match="cannot be read"):
        env_secret("METADET_X")


def test_a_database_address_with_a_socket_folder_is_read():
    entry = database_from_url("postgresql://metadet_app:p%40ss@/metadet?host=/run/pg%20socket")
    assert (entry["NAME"], entry["USER"], entry["PASSWORD"], entry["HOST"], entry["PORT"]) == (
        *("metadet", "metadet_app", "p@ss", "/run/pg socket", ""),
    )


def test_another_database_is_refused():
    with pytest.raises(BadSetting, match="Only PostgreSQL"):
        database_from_url("sqlite:///db.sqlite3")
