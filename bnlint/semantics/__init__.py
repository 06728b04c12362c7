"""What a file means: names, values, modes, and the events that rules read."""
