"""The pictures and examples in docstrings are run, so they cannot lie."""

import doctest
import importlib
import pkgutil

import pytest

import orderbench.orders
import orderbench.reports

MODULES = [
    name
    for room in (orderbench.orders, orderbench.reports)
    for _, name, _ in pkgutil.iter_modules(room.__path__, f"{room.__name__}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module).failed == 0
