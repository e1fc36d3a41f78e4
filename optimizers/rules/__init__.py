"""One file per update rule, and the loop that they share."""
