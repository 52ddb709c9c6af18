"""Thin-lens optics: dioptres, signed blur, dual-pixel gain. No ROS, no torch needed."""
