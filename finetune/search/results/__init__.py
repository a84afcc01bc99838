"""What a search has found, as tables, pages and records."""
