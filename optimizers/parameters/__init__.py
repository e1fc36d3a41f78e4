"""Which parameters are matrices, and how a parameter is seen as matrices."""
