"""What a campaign is: its states and records."""
