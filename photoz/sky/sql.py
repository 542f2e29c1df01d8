"""SkyServer's SQL over the embedded tables: T-SQL translated by sqlglot, run read-only by DuckDB."""

import io
import threading

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import sqlglot
from sqlglot import exp

from photoz.sky.identity import ROW_LIMIT, TIME_LIMIT_S
from photoz.sky.population import Population

_VIEWS = """
CREATE VIEW PhotoObj AS SELECT * FROM PhotoObjAll WHERE mode IN (1, 2);
CREATE VIEW PhotoPrimary AS SELECT * FROM PhotoObjAll WHERE mode = 1;
CREATE VIEW Galaxy AS SELECT * FROM PhotoPrimary WHERE "type" = 3;
CREATE VIEW Star AS SELECT * FROM PhotoPrimary WHERE "type" = 6;
CREATE VIEW SpecObj AS SELECT * FROM SpecObjAll WHERE sciencePrimary = 1;
CREATE MACRO str(x) AS lpad(round(x)::BIGINT::VARCHAR, 10);
CREATE MACRO fDistanceArcMinEq(ra1, dec1, ra2, dec2) AS
  120 * degrees(asin(least(1, sqrt(
    pow(sin(radians(dec2 - dec1) / 2), 2)
    + cos(radians(dec1)) * cos(radians(dec2)) * pow(sin(radians(ra2 - ra1) / 2), 2)))));
CREATE MACRO fGetNearbyObjEq(ra0, dec0, radius) AS TABLE
  SELECT * FROM (SELECT objID, run, camcol, field, rerun, "type", mode, cx, cy, cz,
    fDistanceArcMinEq(ra0, dec0, ra, "dec") AS distance FROM PhotoPrimary
    WHERE "dec" BETWEEN dec0 - radius / 60.0 - 1e-9 AND dec0 + radius / 60.0 + 1e-9)
  WHERE distance <= radius ORDER BY distance;
CREATE MACRO fGetNearestObjEq(ra0, dec0, radius) AS TABLE
  SELECT * FROM fGetNearbyObjEq(ra0, dec0, radius) ORDER BY distance LIMIT 1;
CREATE MACRO fGetObjFromRectEq(ra1, dec1, ra2, dec2) AS TABLE
  SELECT objID, run, camcol, field, rerun, "type", mode, cx, cy, cz FROM PhotoPrimary
  WHERE ra BETWEEN ra1 AND ra2 AND "dec" BETWEEN dec1 AND dec2;
"""
_TABLES = {"photoobjall", "specobjall", "photoz", "photoobj", "photoprimary", "galaxy", "star", "specobj"}
_TABLE_FUNCTIONS = {"fgetnearbyobjeq", "fgetnearestobjeq", "fgetobjfromrecteq"}
_UNSAFE = (exp.Into, exp.Insert, exp.Update, exp.Delete, exp.Create, exp.Drop, exp.Command, exp.Set, exp.Use)


class QueryError(Exception):
    """A query that the server refuses or can't run; the message is what SkyServer would show."""


class QueryTimeout(QueryError):
    """The query ran longer than the server allows."""


class SkyDatabase:
    """The survey's tables in an in-memory database that can neither be changed nor reach anything outside."""

    def __init__(self, population: Population, row_limit: int = ROW_LIMIT, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._row_limit, self._time_limit_s = row_limit, time_limit_s
        self._base = duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "2GB"})
        tables = {"PhotoObjAll": population.photo, "SpecObjAll": population.spec, "Photoz": population.photoz}
        for name, table in tables.items():
            self._base.register("incoming", table)
            # numeric(20,0) in the survey: plates >= 8192 exceed signed 64 bits, and arithmetic must not overflow.
            wide = "REPLACE (specObjID::HUGEINT AS specObjID)" if name == "SpecObjAll" else ""
            self._base.execute(f"CREATE TABLE {name} AS SELECT * {wide} FROM incoming")
            self._base.unregister("incoming")
        self._base.execute(_VIEWS)
        self._base.execute(
            "SET GLOBAL default_collation = 'NOCASE'; SET GLOBAL integer_division = true;"
            "SET GLOBAL python_enable_replacements = false; SET GLOBAL autoinstall_known_extensions = false;"
            "SET GLOBAL enable_external_access = false; SET GLOBAL lock_configuration = true"
        )

    def close(self) -> None:
        """Free the tables."""
        self._base.close()

    def select(self, tsql: str) -> pa.Table:
        """Rows of one T-SQL SELECT, cut at the row limit without a word, as SkyServer does. Raises QueryError."""
        query = translate(tsql, self._row_limit)
        cursor = self._base.cursor()
        expired = threading.Event()

        def stop() -> None:
            expired.set()
            cursor.interrupt()

        timer = threading.Timer(self._time_limit_s, stop)
        timer.daemon = True
        timer.start()
        try:
            table = cursor.sql(query).to_arrow_table()
        except duckdb.InterruptException:
            raise QueryTimeout(
                "Timeout expired. The timeout period elapsed prior to completion of the operation."
            ) from None
        except duckdb.Error as error:
            if expired.is_set():
                raise QueryTimeout("Timeout expired. The query was cancelled.") from None
            raise QueryError(_server_words(error)) from None
        finally:
            timer.cancel()
            cursor.close()
        return table.rename_columns(_distinct_names(table.column_names))


def translate(tsql: str, row_limit: int) -> str:
    """DuckDB SQL of one T-SQL SELECT over the survey's tables, limited to `row_limit` rows.

    Raises QueryError for anything else: several statements, other statements, other tables.
    """
    try:
        statements = [tree for tree in sqlglot.parse(tsql, read="tsql") if tree is not None]
    except sqlglot.errors.SqlglotError as error:
        raise QueryError(f"Incorrect syntax: {str(error).splitlines()[0]}") from None
    if len(statements) != 1 or not isinstance(statements[0], exp.Query):
        raise QueryError("Only one SELECT statement is allowed per query.")
    tree = statements[0]
    if found := tree.find(*_UNSAFE):
        raise QueryError(f"{found.key.upper()} is not allowed: the catalogue is read-only.")
    _resolve_tables(tree)
    _name_columns(tree)
    limit = tree.args.get("limit")
    if limit is None or not _at_most(limit, row_limit):
        tree = tree.limit(row_limit, copy=False)
    return _with_server_semantics(tree).sql(dialect="duckdb")


def _with_server_semantics(tree: exp.Query) -> exp.Query:
    """What SQL Server means and DuckDB doesn't: dbo.f(), float of 64 bits, + that joins text."""
    for call in list(tree.find_all(exp.Dot)):
        if isinstance(call.expression, exp.Func) and call.this.name.lower() == "dbo":
            call.replace(call.expression)
    for kind in list(tree.find_all(exp.DataType)):
        if kind.is_type(exp.DType.FLOAT):
            kind.set("this", exp.DType.DOUBLE)
    for addition in list(tree.find_all(exp.Add)):
        if any(_is_text(side) for side in addition.flatten()):
            addition.replace(exp.DPipe(this=addition.left, expression=addition.right, safe=True))
    return tree


def _is_text(side: exp.Expr) -> bool:
    literal = isinstance(side, exp.Literal) and side.is_string
    return bool(literal or (isinstance(side, exp.Cast) and side.to.is_type(*exp.DataType.TEXT_TYPES)))


def _at_most(limit: exp.Expression, row_limit: int) -> bool:
    count = limit.args.get("expression") or limit.args.get("count")
    return isinstance(count, exp.Literal) and not count.is_string and int(count.this) <= row_limit


def _resolve_tables(tree: exp.Query) -> None:
    """Drop server and schema prefixes (BestDR17.dbo.PhotoObj) and refuse tables that the survey lacks."""
    local = {cte.alias.lower() for cte in tree.find_all(exp.CTE)}
    for table in tree.find_all(exp.Table):
        is_function = isinstance(table.this, exp.Func)
        name = table.this.name if is_function else table.name
        if name.lower() not in (_TABLE_FUNCTIONS if is_function else _TABLES | local):
            raise QueryError(f"Invalid object name '{name or table.this.key}'.")
        for part in ("db", "catalog", "hints"):
            table.set(part, None)


def _name_columns(tree: exp.Query) -> None:
    """Name result columns as SQL Server does: as written in the query, and Column1 where there is no name."""
    first = tree
    while isinstance(first, exp.SetOperation):
        first = first.left
    if not isinstance(first, exp.Select):
        return
    unnamed = 0
    for projection in list(first.expressions):
        if isinstance(projection, exp.Alias) or projection.is_star:
            continue
        if isinstance(projection, exp.Column):
            projection.replace(exp.alias_(projection.copy(), projection.name, quoted=True))
        else:
            unnamed += 1
            projection.replace(exp.alias_(projection.copy(), f"Column{unnamed}", quoted=True))


def _distinct_names(names: list[str]) -> list[str]:
    """z, z -> z, z1, as .NET names the columns of a result."""
    seen: dict[str, int] = {}
    distinct = []
    for name in names:
        repeats = seen.get(name.lower(), 0)
        seen[name.lower()] = repeats + 1
        distinct.append(f"{name}{repeats}" if repeats else name)
    return distinct


def _server_words(error: duckdb.Error) -> str:
    """A DuckDB error in the words that SQL Server has for it."""
    first_line = str(error).splitlines()[0]
    if isinstance(error, duckdb.BinderException) and "Ambiguous" in first_line and '"' in first_line:
        return f"Ambiguous column name '{first_line.split(chr(34))[1]}'."
    if isinstance(error, duckdb.BinderException) and "olumn" in first_line and '"' in first_line:
        return f"Invalid column name '{first_line.split(chr(34))[1]}'."
    if isinstance(error, duckdb.OutOfRangeException):
        return f"Arithmetic overflow error. {first_line}"
    return first_line


def to_csv(table: pa.Table) -> bytes:
    """SkyServer's CSV: a #Table1 line, the column names, the rows; nothing for NULL."""
    columns = [
        column.cast(pa.string()) if pa.types.is_decimal(column.type) else column for column in table.itercolumns()
    ]
    texts = [column for column in columns if pa.types.is_string(column.type)]
    quoted = any(pc.any(pc.match_substring_regex(column, '[,"\r\n]')).as_py() for column in texts)
    sink = io.BytesIO()
    sink.write(("#Table1\n" + ",".join(table.column_names) + "\n").encode())
    options = pyarrow.csv.WriteOptions(include_header=False, quoting_style="needed" if quoted else "none")
    pyarrow.csv.write_csv(pa.table(columns, names=[str(at) for at in range(len(columns))]), sink, options)
    return sink.getvalue()
