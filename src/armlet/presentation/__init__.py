"""How results look: figures, the terminal, and files."""
