"""The service: campaigns, their ledger, the driver that runs them, tracking and every door for users."""
