from test_model import *  # noqa: F403
