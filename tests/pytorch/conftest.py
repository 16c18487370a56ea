"""Executors by name for the tests of torch tasks; `pool` is one set of worker processes for all of them."""

import pytest

from tests.helpers.pool import Pool


@pytest.fixture(scope="package")
def pool():
    pool = Pool()
    yield pool
    pool.close()


@pytest.fixture
def executor(request, pool):
    """The executor that the indirect parameter names."""
    return pool if request.param == "pool" else request.param
