"""What to run: the recipe, how it is loaded, checked and completed. No torch, no database."""
