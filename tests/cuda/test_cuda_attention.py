from checks.attention import *  # noqa: F403
