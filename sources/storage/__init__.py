"""Files and URLs as bytes."""
