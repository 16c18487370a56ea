"""A skorch net, for workers to import."""

import skorch
import torch


class Net(torch.nn.Module):
    def __init__(self, width=8, p=0.2):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(4, width), torch.nn.BatchNorm1d(width), torch.nn.Tanh(), torch.nn.Dropout(p),
            torch.nn.Linear(width, 2),
        )  # fmt: skip

    def forward(self, x):
        return self.layers(x)


def net(**settings):
    return skorch.NeuralNetClassifier(
        Net, criterion=torch.nn.CrossEntropyLoss, optimizer=torch.optim.SGD, optimizer__momentum=0.9, lr=0.1,
        iterator_train__shuffle=True, train_split=None, verbose=0, batch_size=50, **settings,
    )  # fmt: skip
