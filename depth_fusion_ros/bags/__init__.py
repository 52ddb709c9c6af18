"""rosbag2 in and out, without ROS: write simulated sequences, read any bag of the wire contract."""
