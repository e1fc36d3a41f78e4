"""The driver: one process per attempt of a campaign; everything about Ray on the service's side."""
