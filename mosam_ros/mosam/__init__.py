"""MoSAM without ROS: the streaming tracker, its model, its memory. torch and numpy only."""
