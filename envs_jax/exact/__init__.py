"""Small decision processes with exact values."""
