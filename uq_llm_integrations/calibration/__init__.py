"""What a score is worth: metrics, confidence, and thresholds with guarantees, from graded answers."""
