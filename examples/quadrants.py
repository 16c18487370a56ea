import torch

import pbt
from pbt.pytorch import Data, Split, SupervisedTask, optimizer


def model():
    return torch.nn.Sequential(torch.nn.Linear(2, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))


def data():
    x = torch.randn(3000, 2, generator=torch.Generator().manual_seed(0))
    y = (x[:, 0] * x[:, 1] > 0).long()  # two opposite quadrants against the other two
    return Data(train=Split(x[:2000], y[:2000]), validation=Split(x[2000:], y[2000:]))


task = SupervisedTask(model=model, data=data, optimizer=torch.optim.SGD, bind={"lr": optimizer("lr")})
space = {"lr": pbt.Float(1e-4, 1.0, "log")}
experiment = pbt.Experiment(task=task, space=space, plan=pbt.Plan(interval=40), population=8, rounds=10)

if __name__ == "__main__":
    run = experiment.run()
    print(f"validation accuracy {run.best.score:.3f}", *run.best_schedule.segments, sep="\n")
