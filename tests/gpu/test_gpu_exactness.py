from test_exactness import *  # noqa: F403
