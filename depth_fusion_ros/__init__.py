"""Metric depth with an honest error bar, from dual pixels and from focus sweeps."""

from pkgutil import extend_path

__version__ = "0.1.0"

# The generated half of this package (depth_fusion_ros.msg and its type support) may lie in another
# folder of sys.path than these sources: it does when they run from a checkout (see setup.py).
# Where both lie together, this adds nothing.
__path__ = extend_path(__path__, __name__)
