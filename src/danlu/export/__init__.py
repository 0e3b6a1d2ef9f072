"""From run to files that others load, each verified against what was trained."""
