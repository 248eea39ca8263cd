"""What every process of the test of training with torchrun does: one stage, then, resumed, another
whose trunk is frozen.
"""

import sys
from pathlib import Path

import torch

from mosam_ros.training.base import Stage, Trainer
from mosam_ros.training.data import ClipConfig, ClipStream
from mosam_ros.training.ranks import Ranks

SCHEDULE = (
    Stage("images", 64, 3, 1, 2, 3, 1e-3, single_images=True),
    Stage("clips", 64, 3, 1, 2, 3, 1e-3, frozen_trunk=True),
)


def main() -> None:
    folder = Path(sys.argv[1])
    ranks = Ranks.join("cpu")
    begun = Trainer(folder, 1, SCHEDULE[:1], ranks)
    begun.run(num_workers=0, save_every=1)
    used = [name for name, p in begun.model.base.named_parameters() if p in begun.optimizer.state]
    torch.distributed.barrier()
    trainer = Trainer(folder, 1, SCHEDULE, ranks)
    trainer.resume()
    trainer.run(num_workers=0, save_every=1)
    stream = ClipStream(1, ClipConfig(64, 3, 2), 1, rank=ranks.rank, num_ranks=ranks.count)
    mean = float(next(iter(stream)).frames.float().mean())
    result = {
        "begun": begun.model.base.state_dict(),
        "average": begun.average,
        "resumed": trainer.model.base.state_dict(),
        "used": used,
        "first_batch": mean,
    }
    torch.save(result, folder / f"rank{ranks.rank}.pt")
    ranks.leave()


if __name__ == "__main__":
    main()
