"""The words of the house. Standard library only; every room may import it, it imports no room."""
