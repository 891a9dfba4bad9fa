"""GRPO training with a C core."""
