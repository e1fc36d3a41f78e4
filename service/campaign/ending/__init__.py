"""When a campaign ends, what it trains at its end, and what that says of it."""
