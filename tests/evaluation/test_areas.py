"""Areas under hand-made curves, each worked out here on paper."""

import math

import numpy as np
import pandas as pd
import pytest

from edgesweep.engine.curves.areas import (
    MIB_SHARES,
    cmd,
    cpr,
    mean_over_log_size,
    of_whole,
    share_of_log_axis,
    size_of_share,
)
from edgesweep.sweeps.tables.areas import Curve

NAN = float("nan")


def exactly(value):
    return pytest.approx(value, rel=0, abs=1e-12)


# --- the mean over log size ----------------------------------------------------------------------
def test_circuits_that_prune_to_nothing_count_as_empty():
    """Seven empty circuits, then 0.8. Left out, with (1, 0) and (all, 1) made up, they would be
    worth more than a half."""
    selected = [2**i for i in range(8)]
    n_edges = [0] * 7 + [100]
    ran = [
        0.31,
        NAN,
        1e-17,
        0.2,
        -0.5,
        0.0,
        0.0,
        0.8,
    ]  # of an empty circuit φ is 0, whatever it says
    phi = of_whole(n_edges, ran)
    assert phi.tolist() == [0.0] * 7 + [0.8]
    # of seven steps of one doubling, only the last is not 0: its trapezoid is 0.4 high
    assert mean_over_log_size(selected, phi) == exactly(0.4 / 7)
    assert share_of_log_axis(selected, 2**14) == exactly(7 / 14)


def test_a_curve_worked_out_by_hand():
    # from 10 to 100: (0.2 + 0.6) / 2 over one decade; from 100 to 10,000: (0.6 + 1) / 2 over two
    selected, phi = [100, 10, 10_000], [0.6, 0.2, 1.0]
    assert mean_over_log_size(selected, phi) == exactly((0.4 + 2 * 0.8) / 3)
    assert share_of_log_axis(selected, 100_000) == exactly(3 / 5)
    assert mean_over_log_size([1, 100_000], [0.0, 1.0]) == exactly(0.5)
    assert share_of_log_axis([1, 100_000], 100_000) == exactly(1)


def test_no_end_is_made_up():
    """Neither (1, 0) nor (all, 1): a method that finds nothing has nothing."""
    assert mean_over_log_size([10, 1000], [0.0, 0.0]) == 0
    assert mean_over_log_size([10, 1000], [0.9, 0.9]) == exactly(0.9)


@pytest.mark.parametrize(
    ("selected", "phi"), [([], []), ([0, 0], [0.3, 0.1]), ([7], [0.8]), ([7, 7], [0.8, 0.6])]
)
def test_one_size_has_no_area(selected, phi):
    assert math.isnan(mean_over_log_size(selected, phi))
    assert share_of_log_axis(selected, 100) == 0


def test_circuits_of_one_size_are_averaged_and_those_without_an_edge_have_no_place():
    phi = [0.9, 0.1, 0.3, 0.6]
    assert mean_over_log_size([0, 10, 10, 100], phi) == exactly((0.2 + 0.6) / 2)
    assert share_of_log_axis([0, 10, 10, 100], 1000) == exactly(1 / 3)


def test_phi_is_not_clipped_and_what_is_not_known_makes_the_area_unknown():
    assert mean_over_log_size([1, 10], [-1.0, -3.0]) == exactly(-2)
    assert mean_over_log_size([1, 10], [1.0, 1.6]) == exactly(1.3)
    assert math.isnan(mean_over_log_size([1, 10], [NAN, 1.0]))


def test_leading_axes_are_curves():
    selected, phi = np.array([40, 5, 5, 200]), np.array([0.7, -0.1, 0.3, 1.3])
    curves = np.stack([phi, 2 * phi, 0 * phi])
    for area in (mean_over_log_size, lambda n, p: cmd(n, p, 200)):
        each = [area(selected, curve) for curve in curves]
        assert area(selected, curves).tolist() == pytest.approx(each, nan_ok=True)


# --- MIB -----------------------------------------------------------------------------------------
#: of a graph of 1,000 edges, at the shares of MIB
SIZES = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
PHI = [0.0, 0.1, 0.2, 0.4, 0.8, 1.2, 1.4, 1.2, 1.1, 1.0]


def test_cpr_and_cmd_of_a_curve_worked_out_by_hand():
    # widths in thousandths times the mean of both ends
    area = (
        *(1 * 0.05, 3 * 0.15, 5 * 0.3, 10 * 0.6, 30 * 1.0),
        *(50 * 1.3, 100 * 1.3, 300 * 1.15, 500 * 1.05),
    )
    distance = (
        *(1 * 0.95, 3 * 0.85, 5 * 0.7, 10 * 0.4, 30 * 0.2),
        *(50 * 0.3, 100 * 0.3, 300 * 0.15, 500 * 0.05),
    )
    assert cpr(SIZES, PHI, 1000) == exactly(sum(area) / 1000)
    assert sum(area) / 1000 == exactly(1.103)
    assert cmd(SIZES, PHI, 1000) == exactly(sum(distance) / 1000)
    assert sum(distance) / 1000 == exactly(0.132)


def test_mib_begins_at_its_first_share_and_makes_up_no_empty_circuit():
    assert cpr(SIZES, [1.0] * 10, 1000) == exactly(0.999)
    assert cmd(SIZES, [1.0] * 10, 1000) == 0
    assert cmd(SIZES, [0.0] * 10, 1000) == exactly(0.999)


@pytest.mark.parametrize("missing", range(10))
def test_without_one_of_its_sizes_there_is_nothing(missing):
    sizes = [n for i, n in enumerate(SIZES) if i != missing]
    phi = [p for i, p in enumerate(PHI) if i != missing]
    assert math.isnan(cpr(sizes, phi, 1000))
    assert math.isnan(cmd(sizes, phi, 1000))


def test_further_sizes_change_nothing():
    more = [*SIZES, 3, 400], [*PHI, 5.0, -5.0]
    assert cpr(*more, 1000) == exactly(cpr(SIZES, PHI, 1000))


def test_shares_are_rounded_down_and_none_of_a_small_graph_is_the_empty_circuit():
    assert [size_of_share(s, 70_651) for s in MIB_SHARES] == [
        *(70, 141, 353, 706, 1413),
        *(3532, 7065, 14130, 35325, 70651),
    ]
    assert [size_of_share(s, 1000) for s in MIB_SHARES] == SIZES
    # of 20 edges: 0, 0, 0, 0, 0, 1, 2, 4, 10, 20
    sizes, phi = [1, 2, 4, 10, 20], [0.5, 0.5, 0.5, 0.5, 1.0]
    area = 0.03 * 0.25 + 0.45 * 0.5 + 0.5 * 0.75
    assert cpr(sizes, phi, 20) == exactly(area)


def rows(selection, ablation="edge", **changes):
    told = {
        "n_selected": SIZES,
        "threshold": [float(n) for n in SIZES],
        "n_edges": [0, *SIZES[1:]],
        "faithfulness": [0.7, *PHI[1:]],  # an empty circuit that says so
        "n_edges_possible": 1000,
        "selection": selection,
        "ablation": ablation,
    }
    return pd.DataFrame({**told, **changes})


def areas(table, n_scored=1000, of_nodes=False):
    found = Curve.of(table, n_scored, of_nodes=of_nodes).areas(None, 0.95)
    return {row["measure"]: row["value"] for row in found}


def test_each_of_mib_s_areas_is_of_its_own_selection_and_of_edge_ablation():
    by_value, by_magnitude = areas(rows("topk_value")), areas(rows("topk_abs"))
    assert by_value["cpr"] == exactly(1.103)
    assert math.isnan(by_value["cmd"])
    assert by_magnitude["cmd"] == exactly(0.132)
    assert math.isnan(by_magnitude["cpr"])
    by_nodes = areas(rows("topk_abs", ablation="node"))
    assert math.isnan(by_nodes["cmd"])
    assert (
        by_nodes["area_log"] == by_magnitude["area_log"] == exactly(mean_over_log_size(SIZES, PHI))
    )
    assert by_value["share_log"] == exactly(1)


def test_a_ranking_that_runs_out_of_edges_does_not_reach_mib_s_sizes():
    """What looks at 100 edges cannot select 500."""
    cut = [min(n, 100) for n in SIZES]
    found = areas(rows("topk_abs", n_selected=cut, n_edges=cut))
    assert math.isnan(found["cmd"])
    assert found["share_log"] == exactly(2 / 3)


def test_of_a_method_that_scores_nodes_the_shares_are_of_nodes():
    """Of ten nodes: 0, 0, 0, 0, 0, 0, 1, 2, 5 and 10. The other area is over their edges."""
    of_nodes = pd.DataFrame(
        {
            "n_selected": [3, 12, 200, 1000],
            "threshold": [1.0, 2.0, 5.0, 10.0],
            "n_edges": [3, 12, 200, 1000],
            "faithfulness": [0.2, 0.4, 0.8, 1.0],
            "n_edges_possible": 1000,
            "selection": "topk_abs",
            "ablation": "edge",
        }
    )
    found = areas(of_nodes, n_scored=10, of_nodes=True)
    distance = 0.049 * 1 + 0.05 * 0.9 + 0.1 * 0.7 + 0.3 * 0.4 + 0.5 * 0.1
    assert found["cmd"] == exactly(distance)
    assert found["share_log"] == exactly(math.log(1000 / 3) / math.log(1000))


def test_intervals_are_of_resampled_curves():
    draw = np.random.default_rng(0)
    resampled = np.array(PHI) + draw.normal(0, 0.1, (50, 1))
    found = {
        row["measure"]: row
        for row in Curve.of(rows("topk_abs"), 1000, of_nodes=False).areas(resampled, 0.9)
    }
    resampled[:, 0] = 0  # its circuit is empty
    each = np.sort([cmd(SIZES, curve, 1000) for curve in resampled])
    assert found["cmd"]["low"] == exactly(np.quantile(each, 0.05))
    assert found["cmd"]["high"] == exactly(np.quantile(each, 0.95))
    assert math.isnan(found["share_log"]["low"])


def test_of_a_model_without_faithfulness_nothing_is_known():
    nothing = rows("topk_abs", faithfulness=NAN)
    assert np.isnan([areas(nothing)[name] for name in ("area_log", "cpr", "cmd")]).all()
