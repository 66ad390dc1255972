"""Methods of other packages."""
