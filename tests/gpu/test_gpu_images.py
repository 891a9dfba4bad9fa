from checks.images import *  # noqa: F403
