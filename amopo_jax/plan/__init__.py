"""What a run would need and take on devices that are not there: its real train step, compiled ahead of time."""
