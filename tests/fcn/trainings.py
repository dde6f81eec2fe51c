"""Small trainings in this process, and their state after each step."""

from fcn.data.records import open_dataset
from fcn.distributed import World
from fcn.job import Job
from fcn.platform import Platform
from fcn.status import Status
from fcn.stop import StopRequest
from fcn.train import Trainer

EPOCHS = 3
HALF = Platform("cpu", amp_level="O3", for_onednn=False)  # Ascend's way; the CPU has the kernels too


def trainer(config, folder, platform, status):
    """A trainer of one rank in this process."""
    status = status or Status()
    job = Job(config, {}, folder, platform, World(status=status), status, StopRequest())
    return Trainer(job, open_dataset(config.data_file))


class Snapshots(Status):
    """The trainer's state after each step, and what it reported."""

    def __init__(self):
        self.states, self.losses, self.events, self.trainer = [], [], [], None

    def send(self, event, **fields):
        self.events.append({"event": event, **fields})
        if event == "step":
            self.losses.append(fields["loss"])
            self.states.append(state_of(self.trainer))


def state_of(trainer):
    return {name: value.asnumpy().copy() for name, value in trainer._state()}


def run(make_trainer, *overrides, **options):
    """Trains; returns the states, the first before any step, and the trainer with its reports in `status`."""
    status = Snapshots()
    status.trainer = make_trainer(*overrides, status=status, **options)
    first = state_of(status.trainer)
    assert status.trainer.run() == 0
    return [first, *status.states], status.trainer
