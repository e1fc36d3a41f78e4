"""What should run, compared with what runs, and the difference repaired: for a service and for a single run."""
