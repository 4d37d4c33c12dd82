"""The board: everybody's finished runs in one table, one JSON file a run; results join it by adding files."""
