"""What stands around a trainer of TRL that is made without its constructor."""
from types import SimpleNamespace


class OneProcess:
    """What the trainer asks of accelerate, for one process."""
    num_processes, process_index, device, sync_gradients = 1, 0, "cpu", True
    gather = gather_for_metrics = staticmethod(lambda x: x)
    reduce = staticmethod(lambda x, reduction: x)
    pad_across_processes = staticmethod(lambda x, dim, pad_index: x)


class Absent(SimpleNamespace):
    """Attributes that nobody set are features left off."""
    def __getattr__(self, name):
        return None
