"""What the project is kept with; not a part of the program."""
