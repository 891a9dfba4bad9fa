from checks.optim import *  # noqa: F403
