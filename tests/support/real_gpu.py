"""Whether a GPU can be used here."""
from grpo import _core
from grpo.errors import DeviceError


def lacking() -> str:
    """Why no GPU can be used; "" when one can."""
    try:
        _core.Ops("cuda")
        return ""
    except DeviceError as error:
        return str(error)


LACKING = lacking()
