"""A driver that catches the loss of the cluster's head, for test_infrastructure.py.

Arguments: the address, the run directory, the folder of `Gathers`, seconds after which the head is given up, and
seconds that the program goes on afterwards.
"""

import sys
import time

from ray_tasks import Gathers  # beside this file

import pbt
from pbt.executors.ray import control_store

address, path, gathering, given_up, goes_on = sys.argv[1:]
control_store.HEAD_SECONDS = float(given_up)
try:
    pbt.run(
        Gathers(gathering),
        {"lr": pbt.Float(0.01, 0.5, "log")},
        plan=pbt.Plan(exploit=pbt.truncation(0.4), interval=3),
        population=2,
        rounds=3,
        executor="ray",
        cluster=pbt.Cluster(address=address),
        run_dir=path,
    )
except pbt.PBTError as error:
    print(f"caught {error.exit_code} {error}", flush=True)  # noqa: T201
    time.sleep(float(goes_on))
    print("the program goes on", flush=True)  # noqa: T201
