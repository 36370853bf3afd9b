"""Statements of the path that every instance takes: their text is made once and given to SQLite's driver as it is.

They are written with the tables like all others and run inside the transaction of a `Connection`. What SQLAlchemy does
for each execution besides (keys of its cache, types, result objects) costs ten times what SQLite takes for one row.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Delete, Insert, Select, Update
from sqlalchemy.dialects import sqlite

_named: Any = namedtuple  # the names of a row are the statement's, and no checker can know them
_DIALECT = sqlite.dialect(paramstyle="named")


class Prepared:
    """One statement whose values are all named parameters, none of them a list.

    `columns` are those that an INSERT or UPDATE sets, by default all; what a table has as its default is not put in.
    Raises what the driver raises; `Database` translates it as it does SQLAlchemy's. Booleans come back as 0 and 1.
    """

    def __init__(self, statement: Select[Any] | Insert | Update | Delete, *columns: str) -> None:
        self._text = str(statement.compile(dialect=_DIALECT, column_keys=columns or None))
        names = statement.selected_columns.keys() if isinstance(statement, Select) else ()
        self._row = _named("Row", names)

    def first(self, connection: Connection, **values: object) -> Any:
        """The first row with its columns by name, or None."""
        found = _driver(connection).execute(self._text, values).fetchone()
        return None if found is None else self._row(*found)

    def run(self, connection: Connection, values: Mapping[str, object]) -> None:
        """Run it once."""
        _driver(connection).execute(self._text, values)

    def run_all(self, connection: Connection, rows: Sequence[Mapping[str, object]]) -> None:
        """Run it for each of `rows`."""
        _driver(connection).executemany(self._text, rows)


def _driver(connection: Connection) -> Any:
    return connection.connection.driver_connection
