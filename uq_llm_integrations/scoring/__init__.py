"""What a candidate's numbers mean."""
