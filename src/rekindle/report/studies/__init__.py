"""What a study found: statistics over seeds and tasks, and the page, tables and figures that show them."""
