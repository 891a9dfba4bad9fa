import pytest

from checks.gemm import *  # noqa: F403

pytestmark = pytest.mark.usefixtures("capability")
