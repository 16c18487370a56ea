"""An ordinary training script: it knows nothing of pbt.

It saves to --out, resumes from --resume, and prints JSON lines.
"""

import argparse
import json
from pathlib import Path

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--decay", type=float, default=0.0)
parser.add_argument("--resume", type=Path, help="folder of a checkpoint")
parser.add_argument("--out", type=Path, required=True, help="folder for the checkpoint")
parser.add_argument("--steps", type=int, default=100)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

# Two interleaved half circles: a class each.
generator = torch.Generator().manual_seed(args.seed)
angle = torch.rand(600, generator=generator) * torch.pi
label = torch.arange(600) % 2
flip = 1 - 2 * label
x = torch.stack([angle.cos() * flip + label, angle.sin() * flip + label / 2], dim=1)
x += 0.15 * torch.randn(600, 2, generator=generator)
train, held_out = slice(0, 400), slice(400, 600)

torch.manual_seed(args.seed)
model = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9, weight_decay=args.decay)
first = 0
if args.resume:
    checkpoint = torch.load(args.resume / "checkpoint.pt", weights_only=True)
    model.load_state_dict(checkpoint["model"])
    optimizer.load_state_dict(checkpoint["optimizer"])  # with the learning rate of the checkpoint, so:
    for group in optimizer.param_groups:
        group["lr"], group["weight_decay"] = args.lr, args.decay
    first = checkpoint["step"]

for step in range(first, first + args.steps):
    # Drawn by (seed, step): a resumed training sees the batches that an uninterrupted one would see.
    batch = torch.randint(0, 400, (32,), generator=torch.Generator().manual_seed(args.seed * 1_000_003 + step))
    loss = nn.functional.cross_entropy(model(x[train][batch]), label[train][batch])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 20 == 19:
        print(json.dumps({"step": step + 1, "loss": loss.item()}))

step = first + args.steps
state = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}
torch.save(state, args.out / "checkpoint.pt")
with torch.no_grad():
    accuracy = (model(x[held_out]).argmax(dim=1) == label[held_out]).float().mean().item()
group = optimizer.param_groups[0]
in_effect = {"lr": group["lr"], "decay": group["weight_decay"]}  # read from the optimizer, compared by the run
print(json.dumps({"accuracy": accuracy, "hparams": in_effect}))
