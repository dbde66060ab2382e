"""What a person reads on a terminal or a page: the console, cells of tables, and numbers with units."""
