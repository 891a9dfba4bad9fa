"""Training: the loop, and what runs in it.

grpo.py, rloo.py and sft.py the trainers; loop.py what they share: steps, evaluation, checkpoints; face.py what scripts
call after training; hub.py the model's card and its upload; resume.py going on
from a checkpoint; callbacks.py who is told, and the progress that is shown; profile.py the time of each operation;
interrupt.py Ctrl-C, SIGTERM and SIGHUP.
"""
from .grpo import GRPOTrainer
from .interrupt import TrainingInterrupted
from .rloo import RLOOTrainer
from .sft import SFTTrainer, sft

__all__ = ["GRPOTrainer", "RLOOTrainer", "SFTTrainer", "TrainingInterrupted", "sft"]
