"""What guidebook.json says, for people: rows for the terminal, a model card, a page."""
