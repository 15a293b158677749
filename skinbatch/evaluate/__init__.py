"""Compare the tables of a destination with what people annotated: numbers, tables and plots."""
