import pytest

from checks.head import *  # noqa: F403

pytestmark = pytest.mark.usefixtures("capability")
