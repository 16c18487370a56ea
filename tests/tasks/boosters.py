"""Tasks over boosters, for workers to import."""

import functools

import numpy as np

from pbt.tasks.boosting import LightGBMTask, XGBoostTask

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 5))
Y = (X[:, 0] * X[:, 1] + 0.3 * RNG.normal(size=400) > 0).astype(int)
PARTS = {"train": slice(0, 200), "valid": slice(200, 300), "test": slice(300, 400)}


def matrices():
    import xgboost

    return [xgboost.DMatrix(X[part], Y[part]) for part in PARTS.values()]


def datasets():
    import lightgbm

    train = lightgbm.Dataset(X[PARTS["train"]], Y[PARTS["train"]])
    return train, *(train.create_valid(X[PARTS[name]], Y[PARTS[name]]) for name in ("valid", "test"))


def xgboost_params(hparams):
    return {
        "objective": "binary:logistic", "max_depth": 3, "eta": hparams["lr"], "lambda": hparams.get("decay", 1.0),
        "eval_metric": ["error", "logloss"],
    }  # fmt: skip


def lightgbm_params(hparams):
    return {
        "objective": "binary", "num_leaves": 7, "eta": hparams["lr"], "lambda_l2": hparams.get("decay", 0.0),
        "min_data_in_leaf": 5, "metric": ["auc", "binary_logloss"], "deterministic": True,
    }  # fmt: skip


def with_(params, extra, hparams):
    return {**params(hparams), **extra}


def failing(params, hparams):
    if 0.2 < hparams["lr"] < 0.4:
        raise ArithmeticError("no such rate")
    return params(hparams)


def xgboost_task(params=xgboost_params, **extra):
    return XGBoostTask(params=functools.partial(with_, params, extra), data=matrices, score="logloss")


def lightgbm_task(params=lightgbm_params, **extra):
    return LightGBMTask(params=functools.partial(with_, params, extra), data=datasets, score="binary_logloss")
