"""What ModelConfig asks of a model."""
from ..errors import ConfigError
from .arguments import ModelConfig


def get_peft_config(model_args: ModelConfig) -> None:
    """None without use_peft. ConfigError with it: adapters are not trained."""
    if model_args.use_peft:
        raise ConfigError("use_peft=True cannot be honoured: adapters are not trained, every weight is; leave it out "
                          "(the lora_ options are read only with it)")


def get_quantization_config(model_args: ModelConfig) -> None:
    """None without load_in_4bit and load_in_8bit. ConfigError with one of them."""
    for name in ("load_in_4bit", "load_in_8bit"):
        if getattr(model_args, name):
            raise ConfigError(f"{name}=True cannot be honoured: weights that train are bfloat16 with float32 masters; "
                              "leave it out")


def get_kbit_device_map() -> None:
    """None: the device is an option of the config, device='cpu' or device='cuda'."""
