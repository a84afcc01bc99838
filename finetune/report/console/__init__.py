"""What commands print: tables and summaries on the screen."""
