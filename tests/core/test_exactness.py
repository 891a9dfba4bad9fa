from checks.exactness import *  # noqa: F403
