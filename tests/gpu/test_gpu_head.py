from checks.head import *  # noqa: F403
