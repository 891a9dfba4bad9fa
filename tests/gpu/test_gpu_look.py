from checks.look import *  # noqa: F403
