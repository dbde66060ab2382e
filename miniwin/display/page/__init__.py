"""HTML pages that need no other file and no network: the sheet, its style, and charts as inline SVG."""
