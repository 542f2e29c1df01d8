from collections.abc import Iterator

import numpy as np
import pytest

from photoz.sky.population import Population, build_population
from photoz.sky.sql import QueryError, QueryTimeout, SkyDatabase, to_csv, translate


@pytest.fixture(scope="module")
def population() -> Population:
    return build_population(1000)


@pytest.fixture(scope="module")
def database(population: Population) -> Iterator[SkyDatabase]:
    database = SkyDatabase(population)
    yield database
    database.close()


def lines(database: SkyDatabase, query: str) -> list[str]:
    return to_csv(database.select(query)).decode().splitlines()


def test_csv_opens_with_the_table_line_and_names_columns_as_written(database: SkyDatabase) -> None:
    reply = lines(database, "SELECT TOP 2 p.objid, s.SpecObjID AS spec, s.z, p.z FROM SpecObj s "
                            "JOIN PhotoObj p ON s.bestobjid = p.objid ORDER BY p.objid")  # fmt: skip
    assert reply[:2] == ["#Table1", "objid,spec,z,z1"]
    assert len(reply) == 4


def test_a_query_without_rows_still_names_its_columns(database: SkyDatabase) -> None:
    assert lines(database, "SELECT z FROM SpecObj WHERE z > 99") == ["#Table1", "z"]


def test_columns_without_a_name_are_numbered(database: SkyDatabase) -> None:
    assert lines(database, "SELECT COUNT(*), MAX(z) FROM SpecObj")[1] == "Column1,Column2"


def test_ids_come_back_digit_by_digit(database: SkyDatabase, population: Population) -> None:
    reply = lines(database, "SELECT specObjID FROM SpecObjAll WHERE plate >= 8192 ORDER BY specObjID")
    specobjid = population.spec["specObjID"].to_numpy()
    assert [int(text) for text in reply[2:]] == np.sort(specobjid[specobjid >= 2**63]).tolist()
    assert len(reply) > 2


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("7 / 2", "3"),
        ("7 / 2.0", "3.5"),
        ("CAST(1 AS float) / 3", "0.3333333333333333"),
        ("CONVERT(bigint, 7) % 4", "3"),
        ("12 & 8", "8"),
        ("5 ^ 3", "6"),
        ("ISNULL(NULL, 3)", "3"),
        ("ABS(-2)", "2"),
        ("POWER(2, 3)", "8"),
        ("FLOOR(2.7)", "2"),
        ("CAST(5 AS varchar(9)) + 'x'", "5x"),
        ("(1237648720693755918 % 2147483647) * 1103515245 % 2147483647", "1671299026"),
        ("dbo.fDistanceArcMinEq(10, 0, 10, 1)", "60"),
    ],
)
def test_expressions_mean_what_they_mean_to_sql_server(database: SkyDatabase, expression: str, value: str) -> None:
    reply = lines(database, f"SELECT TOP 1 {expression} AS answer FROM SpecObj")[2]
    assert reply == value or float(reply) == pytest.approx(float(value))


def test_text_compares_without_regard_to_case(database: SkyDatabase) -> None:
    assert database.select("SELECT COUNT(*) AS n FROM SpecObj WHERE class = 'galaxy'")["n"][0].as_py() > 900


def test_target_bits_select(database: SkyDatabase) -> None:
    everything = database.select("SELECT legacy_target1 FROM SpecObj")["legacy_target1"].to_numpy()
    chosen = database.select("SELECT z FROM SpecObj WHERE (legacy_target1 & (64 | 128 | 256)) > 0").num_rows
    assert chosen == ((everything & 448) > 0).sum()


def test_views_show_what_the_surveys_views_show(database: SkyDatabase) -> None:
    def count(table: str, condition: str = "1 = 1") -> int:
        return int(database.select(f"SELECT COUNT(*) AS n FROM {table} WHERE {condition}")["n"][0].as_py())

    assert count("SpecObj") == count("SpecObjAll", "sciencePrimary = 1") < count("SpecObjAll")
    assert count("PhotoPrimary") == count("PhotoObj", "mode = 1") < count("PhotoObj")
    assert count("Galaxy") + count("Star") == count("PhotoPrimary")
    assert count("BestDR17.dbo.PhotoObj") == count("dbo.PhotoObj") == count("PhotoObj")


def test_cone_function_finds_the_objects_within_its_radius(database: SkyDatabase, population: Population) -> None:
    ra, dec = population.objects.ra[7], population.objects.dec[7]
    found = database.select(f"SELECT n.objID, n.distance FROM dbo.fGetNearbyObjEq({ra}, {dec}, 300) AS n")
    boxes = database.select(f"SELECT objID FROM PhotoPrimary WHERE dbo.fDistanceArcMinEq({ra}, {dec}, ra, dec) <= 300")
    assert set(found["objID"].to_pylist()) == set(boxes["objID"].to_pylist())
    assert found["distance"][0].as_py() == pytest.approx(0, abs=1e-6)


def test_rows_beyond_the_limit_are_cut_without_a_word(population: Population) -> None:
    database = SkyDatabase(population, row_limit=50)
    assert database.select("SELECT z FROM SpecObj").num_rows == 50
    assert database.select("SELECT TOP 60 z FROM SpecObj").num_rows == 50
    assert database.select("SELECT TOP 20 z FROM SpecObj").num_rows == 20
    database.close()


def test_a_query_that_runs_too_long_is_cancelled(population: Population) -> None:
    database = SkyDatabase(population, time_limit_s=0.3)
    with pytest.raises(QueryTimeout, match="Timeout expired"):
        database.select(
            "SELECT COUNT(*) FROM PhotoObj a, PhotoObj b, PhotoObj c WHERE a.r + b.r * c.g > SIN(a.g * b.g + c.i)"
        )
    assert database.select("SELECT COUNT(*) AS n FROM SpecObj")["n"][0].as_py() > 900
    database.close()


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("SELECT foo FROM SpecObj", "Invalid column name 'foo'"),
        ("SELECT z FROM Nothing", "Invalid object name 'Nothing'"),
        ("SELECT objID FROM PhotoObj p, Photoz x", "Ambiguous column name 'objID'"),
        ("SELECT * FROM read_csv('/etc/passwd')", "Invalid object name"),
        ("SELECT * FROM '/etc/passwd'", "Invalid object name|Incorrect syntax"),
        ("SELECT * FROM duckdb_settings()", "Invalid object name"),
        ("SELECT * FROM information_schema.tables", "Invalid object name"),
        ("SELECT z INTO mine FROM SpecObj", "not allowed"),
        ("DROP TABLE SpecObjAll", "Only one SELECT"),
        ("DELETE FROM SpecObjAll", "Only one SELECT"),
        ("SELECT 1; DROP TABLE SpecObjAll", "Only one SELECT"),
        ("SELECT z FROM SpecObj WHERE", "Incorrect syntax"),
        ("", "Only one SELECT"),
        ("SELECT CAST(9223372036854775807 AS bigint) * 2 AS n FROM SpecObj", "Arithmetic overflow"),
    ],
)
def test_what_the_server_refuses_it_refuses_in_words(database: SkyDatabase, query: str, complaint: str) -> None:
    with pytest.raises(QueryError, match=complaint):
        database.select(query)


def test_functions_that_reach_outside_are_locked(database: SkyDatabase) -> None:
    for query in ("SELECT read_text('/etc/passwd') AS t FROM SpecObj", "SELECT getenv('HOME') AS t FROM SpecObj"):
        with pytest.raises(QueryError):
            database.select(query)


def test_a_top_of_several_statements_keeps_its_order(database: SkyDatabase) -> None:
    z = database.select("SELECT TOP 30 z FROM SpecObj WHERE z > 0.1 ORDER BY z DESC")["z"].to_numpy()
    assert len(z) == 30
    assert np.all(np.diff(z) <= 0)
    assert "LIMIT 30" in translate("SELECT TOP 30 z FROM SpecObj ORDER BY z", 500_000)
