"""What a campaign has found, written for people: its best configuration, its verdicts, a page of figures."""
