import duckdb
import numpy as np
import pyarrow as pa
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st

from photoz.catalog.sampling import shuffled_order
from photoz.surveys.sdss.hashing import mixed_hash, mixed_hash_sql
from photoz.surveys.survey import HASH_RANGE


def sdss_like_ids(fields: int = 4000, per_field: int = 8) -> np.ndarray:
    """objIDs packed as SDSS does: skyversion 2, rerun 301, run, camcol, field, object."""
    rng = np.random.default_rng(5)
    run = np.repeat(rng.choice(8000, fields // 100, replace=False), 100)
    camcol, field = np.repeat(rng.integers(1, 7, fields // 100), 100), np.tile(np.arange(11, 111), fields // 100)
    address = (2 << 59) | (301 << 48) | (run << 32) | (camcol << 29) | (field << 16)
    objects = np.concatenate([rng.choice(600, per_field, replace=False) for _ in range(fields)])
    return (np.repeat(address, per_field) | objects).astype(np.uint64)


def test_the_hash_in_sql_is_the_hash_in_numpy() -> None:
    ids = np.concatenate([sdss_like_ids(400), np.array([0, 1, 2**31 - 1, 2**31, 2**62, 2**63 - 1], np.uint64)])
    table = pa.table({"objID": ids.astype(np.int64)})
    sql = sqlglot.transpile(f"SELECT {mixed_hash_sql('p.objID')} AS h FROM sky AS p", read="tsql", write="duckdb")[0]
    connection = duckdb.connect()
    connection.register("sky", table)
    assert connection.sql(sql).fetchnumpy()["h"].tolist() == mixed_hash(ids).tolist()


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**63 - 1))
def test_no_step_of_the_hash_leaves_64_signed_bits(number: int) -> None:
    # The same expression on Python's unbounded integers, each product kept to look at.
    products: list[int] = []

    class Bigint(int):
        def __mul__(self, other: int) -> "Bigint":
            products.append(int(self) * int(other))
            return Bigint(products[-1])

        def __mod__(self, other: int) -> "Bigint":
            return Bigint(int(self) % int(other))

        def __xor__(self, other: int) -> "Bigint":
            return Bigint(int(self) ^ int(other))

    result = eval(mixed_hash_sql("ID"), {"__builtins__": {}, "ID": Bigint(number)})  # noqa: S307 - our own text
    assert len(products) == 3 and max(products) < 2**63
    assert 0 <= result < HASH_RANGE
    assert result == int(mixed_hash(np.array([number], np.uint64))[0])


def test_every_literal_is_an_int_to_sql_server() -> None:
    # A literal from 2**31 on is numeric there, and the whole expression would leave integer arithmetic.
    import re

    assert max(int(number) for number in re.findall(r"\d+", mixed_hash_sql("p.objID"))) < 2**31


def test_the_smallest_hashes_are_a_uniform_sample_of_ids_in_scan_order() -> None:
    ids = sdss_like_ids()
    hashes = mixed_hash(ids)
    assert len(np.unique(hashes)) > 0.9999 * len(ids)
    filled, _ = np.histogram(hashes, 500, (0, HASH_RANGE))
    expected = len(ids) / 500
    assert 0.8 < np.var(filled) / expected < 1.2  # as Poisson; a lattice gives 0, clumps give more
    for share in (0.01, 0.1, 0.5):
        chosen = hashes < share * HASH_RANGE
        by_field = chosen.reshape(-1, 8).sum(axis=1)
        assert 0.9 < np.var(by_field) / (8 * share * (1 - share)) < 1.1  # as binomial in each field


def test_rows_are_ordered_by_a_hash_of_their_ids_alone() -> None:
    ids = [f"survey/{number}" for number in range(1000)]
    order = shuffled_order(pa.array(ids))
    again = shuffled_order(pa.array(ids[::-1]))
    assert [ids[row] for row in order] == [ids[::-1][row] for row in again]
    assert sorted(order) == list(range(1000))
    assert abs(np.corrcoef(order, np.arange(1000))[0, 1]) < 0.1
