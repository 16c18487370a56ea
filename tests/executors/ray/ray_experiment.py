"""A file as a user has it."""

import os

from ray_tasks import Gathers, Slow, Stated, walk  # beside this file, as a user's module

from pbt import Experiment, Float, Plan, truncation

SPACE = {"lr": Float(0.01, 0.5, "log")}
EVOLVE = Plan(exploit=truncation(0.4), interval=3)
experiment = Experiment(task=walk, space=SPACE, plan=EVOLVE, population=4, rounds=3, seed=1)
slow = Experiment(task=Slow(0.5), space=SPACE, plan=EVOLVE, population=4, rounds=4, seed=1)
gathering = Experiment(
    task=Gathers(os.environ.get("GATHERING")), space=SPACE, plan=EVOLVE, population=4, rounds=3, seed=1
)
stating = Experiment(task=Stated(os.environ.get("GATHERING")), space=SPACE, plan=EVOLVE, population=4, rounds=9, seed=1)
