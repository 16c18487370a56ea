"""A small Hugging Face program: what a user has, with a spy that records the rates that the optimizer really has."""

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

SEEN = []
"""(member, step, learning rate, weight decay) at every step of this process."""
BATCHES = []
"""The sum of each training batch."""


class Words(Dataset):
    """Fifty rows of six words, labeled by the parity of their sum."""

    def __init__(self):
        self.words = torch.randint(0, 20, (50, 6), generator=torch.Generator().manual_seed(0))

    def __len__(self):
        return 50

    def __getitem__(self, index):
        return {"input_ids": self.words[index], "labels": self.words[index].sum() % 2}


class Spy(TrainerCallback):
    """Reads the live optimizer just before it steps."""

    def __init__(self, member):
        self.member = member

    def on_pre_optimizer_step(self, args, state, control, optimizer=None, **kwargs):
        group = optimizer.param_groups[0]
        SEEN.append((self.member, state.global_step, group["lr"], group["weight_decay"]))


class Recording(Trainer):
    """A trainer of the user's own."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        if model.training:
            BATCHES.append(int(inputs["input_ids"].sum()))
        return super().compute_loss(model, inputs, *args, **kwargs)


def accuracy(predicted):
    """The user's `compute_metrics`."""
    return {"accuracy": float((predicted.predictions.argmax(-1) == predicted.label_ids).mean())}


def bert():
    """A network with dropout."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertForSequenceClassification(BertConfig(vocab_size=20, max_position_embeddings=8, **sizes))


def build(hparams, ctx, model=bert, max_steps=60, **settings):
    """The user's own trainer."""
    args = TrainingArguments(
        output_dir=ctx.scratch / "out", per_device_train_batch_size=8, use_cpu=True, max_steps=max_steps,
        learning_rate=1e-3, **settings,
    )  # fmt: skip
    data = Words()
    return Recording(
        model(), args, train_dataset=data, eval_dataset=data, compute_metrics=accuracy, callbacks=[Spy(ctx.member)]
    )


def lora():
    """The network, frozen, with an adapter."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(bert(), LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query"], lora_dropout=0.1))


def failing(hparams, ctx):
    """Raises in training for some values, and diverges for others."""
    trainer = build(hparams, ctx)
    if hparams["lr"] > 0.05:
        trainer.compute_loss = Failing(hparams["lr"])
    return trainer


class Failing:
    def __init__(self, rate):
        self.rate = rate

    def __call__(self, model, inputs, *args, **kwargs):
        if self.rate > 0.09:
            return torch.tensor(float("nan"), requires_grad=True) if model.training else (
                torch.tensor(float("nan")), {"loss": torch.tensor(float("nan")), "logits": torch.zeros(8, 2)}
            )  # fmt: skip
        raise ValueError(f"rate {self.rate} breaks the user's step")


def wrong(hparams, ctx):
    return bert()
