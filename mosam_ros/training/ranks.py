"""Processes that train one model together, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mosam_ros.mosam.checkpoints import choose_device


@dataclass(frozen=True)
class Ranks:
    """This process among those that train; by default it is alone on the CPU.

    Attributes:
        rank: its number, from 0; the first one writes logs and checkpoints.
        count: of processes.
        device: where this process computes.
    """

    rank: int = 0
    count: int = 1
    device: torch.device = torch.device("cpu")

    @classmethod
    def join(cls, device: str) -> Ranks:
        """Meet the other processes that torchrun started; alone without torchrun.

        Args:
            device: `cpu`, `cuda`, or `auto`; with CUDA every process takes a GPU of its own.

        Raises:
            DeviceError: the machine has no such device.
        """
        chosen = choose_device(device)
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return cls(device=chosen)
        if chosen.type == "cuda":
            chosen = choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
            torch.cuda.set_device(chosen)
        torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
        return cls(torch.distributed.get_rank(), count, chosen)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def leave(self) -> None:
        """Part from the others."""
        if self.count > 1:
            torch.distributed.destroy_process_group()

    def average_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradients by their means over all processes. A parameter that has none in any
        process keeps none, so that the optimizer leaves it alone.
        """
        if self.count == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        used = torch.tensor([float(p.grad is not None) for p in trained], device=self.device)
        shares = self.average(used).tolist()
        trained = [p for p, share in zip(trained, shares, strict=True) if share > 0]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        for parameter, mean in zip(trained, self._average_all(gradients), strict=True):
            parameter.grad = mean

    @torch.no_grad()
    def average_statistics(self, model: nn.Module) -> None:
        """Replace the running statistics of batch norms, where they are being gathered, by their
        means over all processes.
        """
        if self.count == 1:
            return
        norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
        statistics = [x for m in norms for x in (m.running_mean, m.running_var)]
        if statistics:
            for old, mean in zip(statistics, self._average_all(statistics), strict=True):
                old.copy_(mean)

    def average(self, values: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
            values /= self.count
        return values

    def _average_all(self, tensors: list[Tensor]) -> list[Tensor]:
        """The means of tensors over all processes, in one message."""
        mean = self.average(torch.cat([x.flatten() for x in tensors]))
        parts = mean.split([x.numel() for x in tensors])
        return [part.view_as(x) for x, part in zip(tensors, parts, strict=True)]
