"""The polar factor of a matrix: solvers, their coefficients, and the products they are made of."""
