"""Rewards for length."""
from typing import Any


class SoftOverlongPunishment:
    """DAPO, equation 13. With L the most tokens of a completion and c the cache: 0 up to L - c tokens, falling in a
    straight line to -1 at L, and -1 beyond.

    >>> SoftOverlongPunishment(100, 20)(completion_ids=[[1] * 80, [1] * 90, [1] * 100])
    [0.0, -0.5, -1.0]
    """

    __name__ = "soft_overlong_punishment_reward"

    def __init__(self, max_completion_length: int, cache: int):
        self.limit, self.cache = max_completion_length, cache

    def __call__(self, completion_ids: list[list[int]], **columns: Any) -> list[float]:
        free = self.limit - self.cache
        return [0.0 if len(ids) <= free else (free - len(ids)) / self.cache if len(ids) <= self.limit else -1.0 for ids in completion_ids]


def get_soft_overlong_punishment(max_completion_len: int, soft_punish_cache: int) -> SoftOverlongPunishment:
    """SoftOverlongPunishment by TRL's name and arguments."""
    return SoftOverlongPunishment(max_completion_len, soft_punish_cache)
