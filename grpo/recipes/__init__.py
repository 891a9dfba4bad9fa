"""Recipes: a run as a file. The YAML files of this room are those that the package brings.

recipe.py what a recipe may say; names.py what other systems call it; preparation.py what is checked before a run
starts.
"""
from .names import OTHER_NAMES
from .preparation import Prepared, default_rewards, prepare
from .recipe import MAPPINGS, OPTION_MAPPINGS, Recipe, names

__all__ = ["MAPPINGS", "OPTION_MAPPINGS", "OTHER_NAMES", "Prepared", "Recipe", "default_rewards", "names", "prepare"]
