"""Reports: pages and tables that people look at."""
