"""Counter-based bits: the published values, every argument counts, and noise whose members and steps are tensors."""

import pytest
import torch
from torch import nn

from pbt.executors.worker import Context
from pbt.pytorch import Noise, key_dropout, philox
from pbt.pytorch.noise import CounterNoise

ONES = 0xFFFFFFFF
KNOWN = [
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((ONES,) * 4, (ONES,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]
"""Counter, key and words: the known answers of Random123's `philox4x32-10`."""


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_the_published_values(counter, key, expected):
    """The words are those of the reference implementation."""
    words = philox.scrambled([torch.tensor(word) for word in counter], [torch.tensor(word) for word in key])
    assert tuple(map(int, words)) == expected


def test_where_the_counter_lies():
    """Group, step and stream are the first three words of the counter, the key's halves its two words."""
    key, step, stream = 0x1234567890, 77, 5
    given = philox.words(torch.tensor([key]), torch.tensor(step), stream, 3)[0].view(3, 4)
    for group in range(3):
        counter = [torch.tensor(word) for word in (group, step, stream, 0)]
        expected = philox.scrambled(counter, [torch.tensor(key & ONES), torch.tensor(key >> 32)])
        assert [word % 2**32 for word in given[group].tolist()] == [*map(int, expected)]


def test_every_argument_counts():
    """Another key, in its lower or upper half, another step and another stream give other bits; equal ones the same."""
    keys = torch.tensor([5, 5 + 2**32, 6, -5])
    rows = [*philox.bits(keys, torch.tensor(7), 1, 64)]
    rows += [philox.bits(keys[:1], torch.tensor(step), stream, 64)[0] for step, stream in ((8, 1), (7, 2))]
    assert len({tuple(row.tolist()) for row in rows}) == 6
    assert torch.equal(philox.bits(keys, torch.tensor(7), 1, 64), torch.stack(rows[:4]))


def test_fewer_elements_are_the_beginning():
    """An element's bits do not depend on how many there are, nor on the members beside."""
    keys = torch.tensor([3, 4, 5])
    many, few = (philox.bits(keys, torch.tensor(2), 0, count) for count in (1000, 13))
    assert torch.equal(many[:, :13], few)
    assert torch.equal(philox.bits(keys[1:2], torch.tensor(2), 0, 1000)[0], many[1])


def test_uniform():
    """Sixteen bits are uniform: their mean, and the counts of their highest four bits (chi-squared, 15 degrees)."""
    drawn = philox.bits(torch.arange(50), torch.tensor(1), 9, 4000).flatten().double()
    assert drawn.mean().item() == pytest.approx(-0.5, abs=5 * 65536 / 12**0.5 / len(drawn) ** 0.5)
    counts = torch.histc(drawn, 16, -32768, 32767)
    expected = len(drawn) / 16
    assert ((counts - expected) ** 2 / expected).sum() < 45


def test_noise_of_a_member_and_a_step():
    """The same member and step give the same dropout in whichever company; another step or use gives another one."""
    noise, contexts = CounterNoise("cpu"), [Context(seed=1, member=m, round=1, first_step=0) for m in range(3)]
    (layer,) = key_dropout(model := nn.Sequential(nn.Dropout(0.5)), noise)
    x = torch.ones(400)

    def drawn(members, step):
        noise.at(*(noise.key(contexts[m], step) for m in members), step=step)
        return noise.bits(x.shape, layer.layer)

    together = drawn([0, 1, 2], 4)
    assert torch.equal(drawn([1], 4)[0], together[1])
    assert not torch.equal(drawn([1], 5)[0], together[1])
    noise.at(noise.key(contexts[1], 4), step=4)
    first, second = model(x), model(x)
    assert not torch.equal(first, second)
    noise.at(noise.key(contexts[1], 4), step=4)
    assert torch.equal(model(x), first)


def test_steps_that_are_counted_on_the_device():
    """Counting the step's tensor gives the bits that naming the next step gives."""
    noise = CounterNoise("cpu")
    noise.at(11, step=6)
    named = noise.bits(torch.Size([50]), 0)
    noise.at(11, step=5)
    noise.step.add_(1)
    assert torch.equal(noise.bits(torch.Size([50]), 0), named)


def test_the_source_of_a_device():
    """The CPU has its own generator; others count."""
    assert type(Noise.of("cpu")) is Noise
    assert type(Noise.of("meta")) is CounterNoise
