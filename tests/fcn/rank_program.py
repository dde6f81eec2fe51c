"""One rank of a training whose state is wanted afterwards: writes OUT/rank-N.npz with losses, weights,
momentum.

python rank_program.py OUT CONFIG.json: started once a rank, with the environment of the worker contract.
"""

import json
import sys
from pathlib import Path

import numpy as np

from fcn import distributed, platform
from fcn.config import Config
from fcn.data.records import open_dataset
from fcn.job import Job
from fcn.status import Status
from fcn.stop import StopRequest
from fcn.train import Trainer


class Recorder(Status):
    """Keeps the losses and the scores that the trainer reports."""

    def __init__(self):
        self.losses, self.scores = [], []

    def send(self, event, **fields):
        if event == "step":
            self.losses.append(fields["loss"])
        if event == "metric":
            self.scores.append([fields["mean_iou"], fields["pixel_accuracy"]])


out, config = Path(sys.argv[1]), Config(**json.loads(Path(sys.argv[2]).read_text()))
device = platform.set_up()
recorder = Recorder()
world = distributed.join(device, recorder)
job = Job(config, {}, out, device, world, recorder, StopRequest())
trainer = Trainer(job, open_dataset(config.data_file))
code = trainer.run()
arrays = {name: parameter.asnumpy() for name, parameter in trainer._state()}
np.savez(out / f"rank-{world.rank}.npz", losses=np.array(recorder.losses), scores=recorder.scores, **arrays)
world.leave(code)
