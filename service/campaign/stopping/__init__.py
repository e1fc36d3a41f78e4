"""When trials and campaigns end."""
