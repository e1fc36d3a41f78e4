"""What the trials of a campaign say."""
