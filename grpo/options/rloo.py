"""RLOOConfig: the options of REINFORCE leave-one-out, with TRL's names and defaults."""
from dataclasses import dataclass

from ..errors import ConfigError
from .base import Checks
from .config import GRPOConfig
from .fields import Numbers, option, typed

# What RLOO is: one clipped ratio a completion, the product of its tokens', and the mean over completions.
FIXED = {"loss_type": "grpo", "aggregation": None, "importance_sampling_level": "sequence_product",
         "scale_rewards": "none", "multi_objective_aggregation": "sum_then_normalize"}


@dataclass
class RLOOConfig(GRPOConfig):
    """Options of RLOOTrainer: those of GRPOConfig but for the ones that would make another loss of it.

    >>> config = RLOOConfig(per_device_train_batch_size=4)
    >>> config.num_generations, config.beta, config.kl_in_reward
    (2, 0.05, True)
    """

    num_generations: int = option(2, "Completions of a prompt: the group's size.")
    beta: float = option(0.05, "Weight of the KL to the reference, which is taken off each reward; 0: no reference is "
                         "kept.", low=0)
    normalize_advantages: bool = option(False, "Bring the advantages of a rollout to mean 0 and standard deviation 1.")
    reward_clip_range: Numbers = option(None, "(least, most): clip each completion's total reward to this; None: "
                                            "do not clip.")
    loss_type: str = option("grpo", "The clipped policy loss.")
    importance_sampling_level: str = option("sequence_product", "One ratio a completion, the product of its tokens'.")
    scale_rewards: str = option("none", "A reward is compared with the mean of the others of its group, and not "
                                "divided.", spelled=(True, "none"))
    kl_in_reward: bool | None = option(  # type: ignore[assignment]
        None, "The KL is taken off the rewards; None: where beta is not 0.")

    def checks(self) -> Checks:
        """What options must be together."""
        yield self._check_loss_of_rloo
        yield from super().checks()
        yield self._check_rewards_of_rloo

    def _check_loss_of_rloo(self) -> None:
        if self.kl_in_reward is None:
            self.kl_in_reward = self.beta != 0.0
        for name, value in FIXED.items():
            if getattr(self, name) != value:
                raise ConfigError(f"{name}={getattr(self, name)!r}: RLOO has one loss, with {name}={value!r}; leave it "
                                  "out, or use GRPOConfig")
        if self.kl_in_reward != bool(self.beta):
            raise ConfigError(f"kl_in_reward={self.kl_in_reward} with beta={self.beta}: RLOO takes the KL off the "
                              "rewards; leave kl_in_reward out, or use GRPOConfig")

    def _check_rewards_of_rloo(self) -> None:
        self.reward_clip_range = clip_range(self.reward_clip_range)


def clip_range(given: list | None) -> list[float] | None:
    """(least, most) of a reward. ConfigError for anything else.

    >>> clip_range([-1, 1])
    [-1.0, 1.0]
    """
    if given is None:
        return None
    numbers = [typed(value, (float,)) for value in given]
    if len(numbers) != 2 or not all(isinstance(value, float) for value in numbers) or not numbers[0] <= numbers[1]:
        raise ConfigError(f"reward_clip_range={given!r:.80} must be two numbers, the least and the most")
    return numbers
