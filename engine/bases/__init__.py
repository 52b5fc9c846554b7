"""Interaction graphs (Bushnaq et al. 2024, "LIB"): bases of a network's node layers, and how much
the directions of one layer interact with those of the next.

    chain         a network as a chain of pieces between cuts, and of sections between node layers
    cuts, split   which cuts a network has; with its norms split
    constant      biases as what a folded constant coordinate adds
    moments       means and second moments, in parts that fold exactly
    forms, closed sections whose Jacobian's second moment needs no Jacobian
    attention     the Jacobian of one layer's attention; its second moment is `closed.attended`
    rotation      PCA, LIB and GIB from these moments
    jacobians     second moments and interactions by batched vector-Jacobian products
    sources       random signs that stand for all positions
    interactions  E², the mean square of integrated-gradient attributions between directions
    ablation      networks with edges or directions left out
    needed        how many edges are needed
    structure     modules of them, and blocks of layers
    fourier       what directions of a modular-addition network are of

Rows are vectors, as in torch: f̂ = (f − μ) C, f ≈ μ + f̂ C⁺. All is float64 but ablation. The folded
constant c (LIB section 5) is never a coordinate: biases are multiplied by it, and its direction
(μ, 1) is treated by itself. Where paper and published code disagree, each docstring says so.
"""
