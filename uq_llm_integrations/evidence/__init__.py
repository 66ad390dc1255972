"""What methods need beyond a candidate's own trace: samples, verdicts, internals, other prompts."""
