"""One Ray for all tests here that need no faults: it takes seconds to start."""

import importlib.util
import os

import pytest

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("RAY_AUTH_MODE", "token")
os.environ.setdefault("RAY_AUTH_TOKEN", "of-these-tests-" + "0" * 32)

# All on one worker of pytest: two cores hold one cluster at a time.
pytestmark = [pytest.mark.needs("ray"), pytest.mark.xdist_group("ray")]


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent.name == "ray":
            for mark in pytestmark:
                item.add_marker(mark)
            # Ray leaves sockets and files to its exit.
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="module")
def local_ray():
    if importlib.util.find_spec("ray") is None:
        yield None
        return
    import ray

    ray.init(address="local", include_dashboard=False, num_cpus=3, logging_level="ERROR", log_to_driver=False)
    yield ray
    ray.shutdown()
