"""What a configuration may hold, checked as a whole before anything begins."""
