"""Dual-pixel estimator: a left/right pair, RGB and lens state in, `DepthEstimate` out."""
