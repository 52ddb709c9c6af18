"""Torch modules only: blocks, parallax attention, DiFuse-Net, closed-form evidence."""
