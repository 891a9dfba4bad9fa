"""Which loggers report_to stands for."""
import importlib.util

from ..errors import ConfigError, did_you_mean, warn

OTHER_REPORTERS = ("wandb", "trackio", "mlflow", "comet_ml", "swanlab")


def reporters(report_to: str | list[str] | None) -> list[str]:
    """The loggers asked for; ConfigError for those that are not there."""
    names = [report_to] if isinstance(report_to, str) else list(report_to or [])
    if "all" in names:
        names = ["tensorboard"] if importlib.util.find_spec("tensorboardX") else []
        warn(f"report_to='all' is {names[0] if names else 'nothing, without tensorboardX'}; every metric is in the "
             "run's metrics.jsonl, and a callback can send it to other loggers")
    names = [n for n in names if n != "none"]
    elsewhere = [n for n in names if n in OTHER_REPORTERS]
    if elsewhere:
        warn(f"report_to: {', '.join(elsewhere)} is not built in; every metric is in the run's metrics.jsonl, and a "
             "callback can send it")
    names = [n for n in names if n not in elsewhere]
    for name in names:
        if name != "tensorboard":
            raise ConfigError(f"report_to={name!r} is not one of none, all, tensorboard, {', '.join(OTHER_REPORTERS)}"
                              f"{did_you_mean(name, ('tensorboard', *OTHER_REPORTERS))}")
        try:
            import tensorboardX  # noqa: F401
        except ImportError as error:
            raise ConfigError("report_to='tensorboard' needs tensorboardX: pip install tensorboardX") from error
    return names
