"""From data file to training tokens: read, check, clean, split, render, pack."""
