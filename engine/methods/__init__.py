"""Attribution methods: one a file, one signature (`base.Method`)."""

from engine.methods.base import Attribution, Method, MethodError, Passes, Settings
from engine.methods.eap import (
    EdgeAttributionAtBoth,
    EdgeAttributionAtPatch,
    EdgeAttributionPatching,
)
from engine.methods.ig_activations import (
    IntegratedGradientsActivations,
    IntegratedGradientsActivationsJoint,
)
from engine.methods.ig_inputs import IntegratedGradientsInputs

#: name -> method, in the order in which they are listed
METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        EdgeAttributionPatching(),
        EdgeAttributionAtPatch(),
        EdgeAttributionAtBoth(),
        IntegratedGradientsInputs(),
        IntegratedGradientsActivations(),
        IntegratedGradientsActivationsJoint(),
    )
}

__all__ = ["METHODS", "Attribution", "Method", "MethodError", "Passes", "Settings"]
