"""Options of published methods, by name: GRPOConfig(preset="dapo"). What else is given goes over them."""
from typing import Any

from ..errors import ConfigError, did_you_mean

PRESETS: dict[str, dict[str, Any]] = {
    # Shao et al. 2024 (DeepSeekMath)
    "grpo": dict(loss_type="grpo", beta=0.04, epsilon=0.2, use_bias_correction_kl=False),
    # Yu et al. 2025: clip-higher, dynamic sampling, token mean, soft overlong punishment over the last fifth
    "dapo": dict(loss_type="dapo", beta=0.0, epsilon=0.2, epsilon_high=0.28, dynamic_sampling=True,
                 soft_overlong_cache=0.2),
    # Liu et al. 2025: no division by the group's std nor by the completion's length
    "dr_grpo": dict(loss_type="dr_grpo", beta=0.0, scale_rewards="none"),
    # Zheng et al. 2025: one ratio a sequence
    "gspo": dict(loss_type="grpo", beta=0.0, importance_sampling_level="sequence", epsilon=3e-4, epsilon_high=4e-4),
    # MiniMax-M1, with ScaleRL's cap
    "cispo": dict(loss_type="cispo", beta=0.0, epsilon_high=5.0),
    # DeepSeekRL's defaults. Its rounds take one prompt and it steps every fourth, so 1000 rounds are 250 steps here.
    "deepseekrl": dict(loss_type="grpo", beta=0.04, use_bias_correction_kl=False, num_generations=16,
                       prompts_per_step=4, max_steps=250, learning_rate=5e-6, lr_scheduler_type="constant_with_warmup",
                       warmup_ratio=0.18, adam_beta2=0.99, weight_decay=0.1, max_grad_norm=0.1, temperature=0.9,
                       max_prompt_length=256, on_long_prompt="truncate", max_completion_length=786,
                       ref_model_mixup_alpha=0.1, ref_model_sync_steps=50, shuffle_dataset=False, seed=7111994),
}


def preset_options(name: Any) -> dict[str, Any]:
    """The options of a preset. ConfigError for one that there is not."""
    if str(name) not in PRESETS:
        raise ConfigError(f"preset={name!r} is not known{did_you_mean(str(name), PRESETS)} Presets: "
                          f"{', '.join(PRESETS)}.")
    return PRESETS[name]
