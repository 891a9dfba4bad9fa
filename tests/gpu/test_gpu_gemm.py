from checks.gemm import *  # noqa: F403
