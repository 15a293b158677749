"""From the tables of a destination and what people said about its photos to numbers, tables and plots."""
