from checks.sample import *  # noqa: F403
