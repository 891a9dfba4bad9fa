from checks.parity import *  # noqa: F403
