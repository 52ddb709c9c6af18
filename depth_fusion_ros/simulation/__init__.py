"""Procedural scenes, a ray-tracing camera with a finite aperture, and a sensor model (torch)."""
