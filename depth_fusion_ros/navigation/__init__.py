"""What a navigation stack takes from a depth estimate: clouds to mark and clear, and a scan."""
