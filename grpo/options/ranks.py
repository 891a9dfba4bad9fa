"""Whether this process is one of several that a launcher started: each would train the whole run."""
import os
from collections.abc import Mapping

from ..errors import ConfigError

# what launchers say, the surest first: the number of processes of torchrun, accelerate and deepspeed, of Open MPI,
# MVAPICH and Intel MPI, of a step of Slurm; and of a whole Slurm job, where no step says its own
PROCESSES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS")
OF_JOB = "SLURM_NTASKS"


def refuse_ranks(environ: Mapping[str, str] = os.environ) -> None:
    """ConfigError where a launcher has started several processes.

    >>> refuse_ranks({"WORLD_SIZE": "1"})
    """
    said = {name: environ[name] for name in PROCESSES if name in environ}
    for name, count in (said or {name: environ[name] for name in (OF_JOB,) if name in environ}).items():
        if count.strip().isdecimal() and int(count) > 1:
            raise ConfigError(f"{name}={count}: a launcher (torchrun, accelerate, deepspeed, mpirun, srun) has started "
                              f"{count} processes, and training runs in one: each would train the whole run. Start the "
                              f"script with python alone; where the processes are runs of their own, unset {name}")
