"""The README's example of PostgreSQL, run on a real server, with the output it shows."""

import psycopg
import pytest

import readme

pytestmark = pytest.mark.slow


@pytest.mark.slow
def test_the_example_of_postgresql_prints_what_the_readme_shows(server, capsys):
    with psycopg.connect(server.dsn(), autocommit=True) as connection:
        connection.execute("CREATE DATABASE readme")
    [example] = readme.examples(readme.sections()["In PostgreSQL"])
    placeholder = "postgresql://user@host/database"
    assert placeholder in example.code
    exec(example.code.replace(placeholder, server.dsn("readme")), {})
    assert capsys.readouterr().out == example.shown
