"""Train every method on two processes that draw from generators of their own; say where the ranks end up apart.

Run by test_ranks.py under torchrun's environment variables.
"""

import sys

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from rekindle import DTNH, Direction, Method
from rekindle.registry import methods, parse
from rekindle.testing.network import Loop, batch, data, hybrid


def train(
    made: list[Method], direction: Direction | None, rank: int, world: int, accumulate: int = 1, norm: bool = True
) -> dict[str, torch.Tensor]:
    """Two epochs of two steps on global batches of eight images."""
    loop = Loop(made, hybrid(norm=norm).double(), epochs=2, steps=2, direction=direction)
    loop.tuner.prepare(data(torch.float64))
    loop.model.train()
    torch.manual_seed(100 + rank)
    wrapped = DistributedDataParallel(loop.model) if world > 1 else loop.model
    for epoch in range(2):
        loop.tuner.start_epoch(epoch)
        for step in range(2):
            x, y, indices = (part[rank::world] for part in batch(1000 * epoch + step, 8))
            pieces = list(zip(x.double().chunk(accumulate), y.chunk(accumulate), indices.chunk(accumulate), strict=True))
            for number, (a, b, c) in enumerate(pieces):
                if world > 1:
                    wrapped.require_backward_grad_sync = number + 1 == len(pieces)
                (loop.tuner.loss(wrapped, a, b, nn.functional.cross_entropy, c) / accumulate).backward()
            loop.tuner.gradients_()
            loop.optimizer.step()
            loop.optimizer.zero_grad()
        loop.scheduler.step()
    return {name: p.detach() for name, p in loop.model.named_parameters()}


def apart(tensors: dict[str, torch.Tensor]) -> list[str]:
    """Names of tensors that differ between the ranks."""
    found = []
    for name, tensor in tensors.items():
        other = tensor.clone()
        dist.broadcast(other, src=0)
        if not torch.equal(other, tensor):
            found.append(name)
    return found


def main() -> int:
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    faults = []
    for name, kind in methods().items():
        faults += [f"{name}: {tensor}" for tensor in apart(train([kind(**kind.example)], None, rank, 2))]
    for recipe in ("attention_transfer(beta=10.0)+l2_sp(alpha=0.1)", "soft_targets", "l2_sp(alpha=0.1)"):
        for accumulate in (1, 2):
            both = train(parse(recipe), DTNH(), rank, 2, accumulate, norm=False)
            one = train(parse(recipe), DTNH(), 0, 1, norm=False)
            most = max(float((both[name] - one[name]).abs().max()) for name in one)
            faults += [f"dtnh on {recipe}, accumulation {accumulate}: {most:.1e} from one process"] if most > 1e-6 else []
            faults += [f"dtnh on {recipe}: {tensor}" for tensor in apart(both)]
    gathered: list[list[str]] = [[], []]
    dist.all_gather_object(gathered, faults)
    if rank == 0:
        print(*dict.fromkeys(gathered[0] + gathered[1]), sep="\n")
    dist.destroy_process_group()
    return int(any(gathered))


if __name__ == "__main__":
    sys.exit(main())
