"""All methods, one file for each kind of evidence that they need."""
