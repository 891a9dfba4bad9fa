"""python -m grpo"""
import sys

from .cli import main

sys.exit(main())
