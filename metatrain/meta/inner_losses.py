"""The choice of the inner loss, `inner.loss`."""

from __future__ import annotations

from metatrain import plugins
from metatrain.meta.leave_one_out import LeaveOneOutLosses
from metatrain.meta.text_losses import TextLosses

# A class of losses states by `head_after` whether the head is made after the inner steps, instead of before.
LOSSES: dict[str, type[TextLosses]] = {"support": TextLosses, "leave_one_out": LeaveOneOutLosses}


def inner_loss(name: str) -> type[TextLosses]:
    """Return the class of losses of `inner.loss=NAME`.

    Raises:
        UserError: there is no such loss.
    """
    found: type[TextLosses] = plugins.find(plugins.INNER_LOSSES, name, LOSSES, f"inner.loss={name} is unknown; choose one of")
    return found
