"""Planning: what a run will hold and how long a step will take, said before anything is loaded.

memory.py arenas against what is free; step_time.py seconds; cards.py what a device can do; shapes.py models known by
name.
"""
from .cards import CARDS, Card, Ceilings, ceilings, find_card, measure
from .memory import (
    Plan,
    Shown,
    available_memory,
    describe,
    human,
    model_config,
    require,
    shown_by,
    step_of,
    table,
    training_plan,
)
from .shapes import known_shape

__all__ = ["CARDS", "Card", "Ceilings", "Plan", "Shown", "available_memory", "ceilings", "describe", "find_card",
           "human", "known_shape", "measure", "model_config", "require", "shown_by", "step_of", "table",
           "training_plan"]
