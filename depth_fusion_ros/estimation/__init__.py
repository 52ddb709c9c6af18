"""Arrays and lens state in, ``DepthEstimate`` out. No ROS."""
