from checks.rows import *  # noqa: F403
