"""Attribution methods: one a file, one signature (`base.Method`)."""

from engine.methods.acdc import ACDC, EAP_ACDC
from engine.methods.base import Attribution, Method, MethodError, Passes, Settings
from engine.methods.eap import (
    EdgeAttributionAtBoth,
    EdgeAttributionAtPatch,
    EdgeAttributionPatching,
)
from engine.methods.exact import EXACT, NODE_EXACT
from engine.methods.hisp import HeadImportance
from engine.methods.ig_activations import (
    IntegratedGradientsActivations,
    IntegratedGradientsActivationsJoint,
)
from engine.methods.ig_inputs import IntegratedGradientsInputs
from engine.methods.nodes import NodeAttributionPatching, NodeIntegratedGradients
from engine.methods.random_order import RandomOrder

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
        EXACT,
        ACDC,
        EAP_ACDC,
        NodeAttributionPatching(),
        NodeIntegratedGradients(),
        NODE_EXACT,
        HeadImportance(),
        RandomOrder(),
    )
}

__all__ = ["METHODS", "Attribution", "Method", "MethodError", "Passes", "Settings"]
