"""Figures in, verdict out: pure statistics that hold however often one looks. Entry: `judge`. Method: docs/statistics.md.

Neighbours: activities.analysis reads the figures and calls `judge`; hotswap.node.figures fills `histogram`.
"""

from hotswap.analysis.judge import judge

__all__ = ["judge"]
