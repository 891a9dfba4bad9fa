from checks.memory import *  # noqa: F403
