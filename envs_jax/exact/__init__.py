"""Small decision processes whose values are known exactly."""
