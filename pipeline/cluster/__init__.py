"""Running on a Ray cluster: jobs, and a cluster of several nodes on this machine for trying things."""
