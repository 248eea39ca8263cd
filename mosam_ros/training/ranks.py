"""Processes that train one model together, as torchrun starts them."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor

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

    def average_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Replace the gradients by their means over all processes."""
        if self.count == 1:
            return
        trained = [p for p in parameters if p.requires_grad]
        for parameter in trained:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        mean = self.average(torch.cat([p.grad.flatten() for p in trained if p.grad is not None]))
        for parameter, part in zip(trained, mean.split([p.numel() for p in trained]), strict=True):
            parameter.grad = part.view_as(parameter)

    def average(self, values: Tensor) -> Tensor:
        """The mean of a tensor over all processes."""
        if self.count > 1:
            torch.distributed.all_reduce(values)
            values /= self.count
        return values
