"""A scikit-learn model trained by `partial_fit`: one function, without torch.

Shows: a state of plain numbers and arrays. The parameters of the model are a few arrays, which the function extracts at
the end of a round and restores at the start of the next; nothing is pickled.

    pip install 'population-based-training[problems]'
    pbt run examples/partial_fit.py:experiment
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import SGDClassifier

import pbt

X, Y = load_digits(return_X_y=True)
X = X / 16
TRAIN, VALIDATION, TEST = slice(0, 1000), slice(1000, 1400), slice(1400, None)
BATCH = 10
LEARNED = ("coef_", "intercept_", "t_")


def model(hparams, state):
    """A classifier with these hyperparameters and the parameters of the state."""
    classifier = SGDClassifier(
        loss="log_loss",
        learning_rate="constant",
        eta0=hparams["eta0"],
        alpha=hparams["alpha"],
        shuffle=False,
    )
    # This call only creates the classifier's arrays; they are overwritten below.
    classifier.partial_fit(np.zeros((10, 64)), np.arange(10), classes=np.arange(10))
    learned = state or {"coef_": np.zeros((10, 64)), "intercept_": np.zeros(10), "t_": 1.0}
    for name in LEARNED:
        setattr(classifier, name, learned[name])
    return classifier


def train(hparams, state, steps, ctx):
    """Train; a step is one call of `partial_fit` with ten images."""
    classifier = model(hparams, state)
    for step in range(ctx.first_step, ctx.first_step + steps):
        rows = np.random.default_rng(ctx.key("batch", ctx.member, step)).integers(1000, size=BATCH)
        classifier.partial_fit(X[TRAIN][rows], Y[TRAIN][rows])
    return {name: getattr(classifier, name) for name in LEARNED}, {
        "score": classifier.score(X[VALIDATION], Y[VALIDATION]),
        "test": classifier.score(X[TEST], Y[TEST]),
    }


experiment = pbt.Experiment(
    task=train,
    space={
        "eta0": pbt.Float(1e-5, 1.0, "log", prior=(1e-5, 1e-2)),
        "alpha": pbt.Float(1e-7, 1e-1, "log"),
    },
    plan=pbt.Plan(exploit=pbt.truncation(0.25), explore=pbt.perturb((0.5, 2.0)), interval=20),
    population=8,
    rounds=15,
)

if __name__ == "__main__":
    run = experiment.run()
    print(f"validation accuracy {run.best.score:.3f}, test accuracy {run.best.reported['test']:.3f}")
    print(*run.best_schedule.segments, sep="\n")
